// All heads at a glance: a thumbnail, the retained mass of every density and the number of blocks of each head.
// Estimates are there at once (the profile stores the mass at four densities); exact figures follow in the background.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "document/compute/head_maps.h"

namespace paro::viewer {

inline constexpr int kThumb = 32;

struct HeadSummary {
    AxisOrder order = AxisOrder::FHW;
    bool exact = false;  // curve and count come from the head's own map, not from the profile's four figures
    std::array<float, kDensitySteps + 1> retained{};       // by slider stop
    std::array<std::uint32_t, kDensitySteps + 1> count{};  // blocks in the mask by slider stop
    double blocks = 0.0;
    // kThumb x kThumb cells, once there: place on the head's own logarithmic scale, and the slider stop (0 to 200) from
    // which on the cell is computed.
    std::vector<std::uint8_t> value, entry;
    std::uint64_t changed = 0;  // another number whenever the cells are others
    // Mass lost on the capture's exact rows of this head, at a density; empty without rows.
    std::vector<float> measured_lost;  // by slider stop

    double retained_at(double density) const;
    double count_at(double density) const;
    double lost_on_rows(double density) const;  // -1 without rows
};

// A head's state as the user has it now; order decides what is computed.
struct HeadState {
    AxisOrder order = AxisOrder::FHW;
    std::optional<double> density;
    bool locked = false;
    friend bool operator==(const HeadState&, const HeadState&) = default;
};

class Overview {
   public:
    // Forgets everything and starts over. heads: one entry per head, layer by layer.
    void start(Workers& workers, std::shared_ptr<const Profile> profile, std::shared_ptr<const Capture> capture,
               const std::vector<HeadState>& heads, std::size_t group, const Grid& grid, std::int32_t tile);
    // Recomputes heads whose order changed.
    void update(Workers& workers, const std::vector<HeadState>& heads);
    // A capture that was read later: the heads it holds rows of are computed again.
    void attach(Workers& workers, std::shared_ptr<const Capture> capture, const std::vector<std::size_t>& with_rows);
    void stop() { ticket_.cancel(); }

    const std::vector<HeadSummary>& heads() const { return heads_; }
    std::size_t exact_count() const { return exact_; }
    std::size_t thumb_count() const { return thumbs_; }
    // Changes whenever a summary does.
    std::uint64_t version() const { return version_; }

   private:
    void post_exact(Workers& workers, std::size_t index, Priority priority);
    void post_thumbs(Workers& workers, std::size_t first, std::size_t last);

    Ticket ticket_;
    std::shared_ptr<const Profile> profile_;
    std::shared_ptr<const Capture> capture_;
    std::size_t group_ = 0;
    Grid grid_;
    std::int32_t tile_ = 64;
    std::vector<std::size_t> layer_of_, head_of_;
    // How often each head's exact figures were asked for: only the last answer counts.
    std::vector<std::uint64_t> asked_;
    std::vector<HeadSummary> heads_;
    std::size_t exact_ = 0, thumbs_ = 0;
    std::uint64_t version_ = 0, changes_ = 0;
};

// The profile's four figures as a curve through (0, 0) and (1, 1); exact at the four.
double interpolate_mass(const std::array<double, 4>& mass, double density);

}  // namespace paro::viewer
