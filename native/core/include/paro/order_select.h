// Choice of a head's axis order: by retained mass at the working density (ours) or by the paper's metric.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "paro/importance.h"

namespace paro {

// The published scores of one order (arXiv 2506.16054, section 3.2): sparsity = share of blocks in which at least 90 %
// of the entries are below 1e-3; incoherence = max / mean inside a block, averaged over blocks.
struct PaperMetric {
    double sparsity = 0.0;
    double incoherence = 0.0;
};

struct OrderScores {
    std::array<double, 6> retained{};             // by AxisOrder
    AxisOrder by_retained_mass = AxisOrder::FHW;  // greatest; ties to the earlier order
};

// From how many query tiles, evenly spread, retained mass is estimated where a grid has more than twice as many: the
// shares of neighbouring tiles differ by little, and all six orders of a large grid cost less than one of its maps.
inline constexpr std::int64_t kScoredTiles = 64;

// What one order is scored by: its importance, or that of kScoredTiles of its query tiles.
struct OrderMap {
    std::int64_t rows = 0, cols = 0;
    bool whole = true;  // all query tiles
    std::vector<float> value;
};

// Into `map`, whose memory is used again. Throws Error for a bad kernel, grid or tile.
void map_order(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
               std::int32_t block_kv, OrderMap& map);

// Share of its mass that a head keeps at each density; of some tiles the blocks that those without one get on top are
// not counted. Throws Error for a bad density.
std::vector<double> retained_of(const OrderMap& map, std::span<const double> densities);

// Retained mass of all six orders at `density`. Orders that flatten the grid alike (a side of 1) share one score, and
// the map of the first of them. maps: by AxisOrder, or null.
OrderScores score_orders(const OffsetKernel& kernel, const Grid& grid, std::int32_t block_q, std::int32_t block_kv,
                         double density, std::array<OrderMap, 6>* maps = nullptr);
// The first order that flattens the grid as this one does.
AxisOrder same_flattened(const Grid& grid, AxisOrder order);
// The same from six exact maps, one per order, in the order of kAxisOrders.
OrderScores score_orders(std::span<const BlockMap> maps, double density);

// Metric of one order, of the map that the kernel's offsets stand for.
PaperMetric paper_metric(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block);

// Both terms normalised over the six orders to [0, 1], then alpha * (1 - sparsity) + (1 - alpha) * incoherence, by
// AxisOrder. The published equation's sign of the first term is ambiguous; this is the reading that rewards sparse
// blocks. Throws Error for alpha outside of [0, 1] or metrics that are not finite.
std::array<double, 6> paper_scores(const std::array<PaperMetric, 6>& metrics, double alpha = 0.5);
// The smallest score wins.
AxisOrder select_by_paper_metric(const std::array<PaperMetric, 6>& metrics, double alpha = 0.5);

}  // namespace paro
