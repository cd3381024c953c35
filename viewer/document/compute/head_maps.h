// One head in all six orders: what the one-head panel and the curves show. Filled by the workers, order by order.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "document/compute/workers.h"
#include "paro/block_rank.h"
#include "paro/capture.h"
#include "paro/order_select.h"
#include "paro/paint.h"

namespace paro::viewer {

// Slider stops: 0.005, 0.010 ... 1.
inline constexpr int kDensitySteps = 200;
inline double density_of_step(int step) { return static_cast<double>(step) / kDensitySteps; }
int step_of_density(double density);

struct HeadKey {
    std::size_t layer = 0, head = 0, group = 0;
    Grid grid;
    std::int32_t tile = 64;
    friend bool operator==(const HeadKey&, const HeadKey&) = default;
};

// Sampled softmax rows of a capture, in one order: exact, one row per sampled query, summed by key block.
struct ExactRows {
    std::vector<std::int32_t> query;  // token in the original order, sorted by its place in this order
    std::vector<std::int64_t> tile;   // query tile it falls into
    std::vector<float> value;         // query.size() x key blocks
    // The mask's entries of each query's tile, for paint().
    std::vector<std::uint32_t> entry;
    // Share of the sampled mass that the kernel's mask keeps.
    double retained(std::uint32_t budget) const;
};

struct OrderMap {
    BlockMap map;
    BlockRanking ranking;
    std::vector<float> curve;  // retained mass at the slider's stops
    std::optional<ExactRows> rows;
    bool exact = false;  // the map itself was captured, not rebuilt from the kernel
};

struct HeadMaps {
    HeadKey key;
    OffsetKernel kernel;
    std::array<std::shared_ptr<const OrderMap>, 6> order;  // empty until computed
    std::array<std::optional<PaperMetric>, 6> metric;
    std::string error;  // why nothing more comes
    bool complete() const;
    bool metrics_complete() const;
    Scale scale;  // of the maps that are there
    // The paper's combined score of each order, smallest best; only with metrics_complete().
    std::array<double, 6> paper_scores() const;
    AxisOrder paper_choice() const;
    // By retained mass at the density, of the orders that are there.
    AxisOrder best(double density) const;
};

// All six orders from the profile's kernel (exact maps and rows of the capture where it holds them). `first` is
// computed before the others. Deliveries fill *maps; nothing happens after ticket.cancel().
void compute_head(Workers& workers, const Ticket& ticket, std::shared_ptr<const Profile> profile,
                  std::shared_ptr<const Capture> capture, std::shared_ptr<HeadMaps> maps, AxisOrder first);

// One order of a head, on the calling thread.
OrderMap order_map(const OffsetKernel& kernel, const Profile& profile, const Capture* capture, const HeadKey& key,
                   AxisOrder order);

// Whether the capture holds exact rows of the head on this grid.
bool has_rows(const Capture* capture, const Profile& profile, std::size_t layer, std::size_t head, std::size_t group,
              const Grid& grid);

std::vector<float> density_curve(const BlockRanking& ranking);

}  // namespace paro::viewer
