// Profiles made anew from what a run has seen: other kernels, the same orders and densities.
#pragma once

#include <span>
#include <vector>

#include "paro/profile.h"

namespace paro {

// What was sampled of one layer of a profile, in groups that count differently (halves of a run).
struct LayerSamples {
    struct Group {
        std::vector<const OffsetAccumulator*> heads;
        double weight = 1.0;  // of one of its rows
    };
    std::size_t layer = 0;
    std::vector<Group> groups;
};

// The profile with this timestep group's kernels renewed: the mean of its own ones, counting as `prior` rows each, and
// of the samples by their weighted rows. Where one side never observed an offset (0) the other counts alone. Heads
// without rows and layers without samples stay. Samples may have other bins, but not gains of keys then. All heads in
// parallel over `threads`. Throws Error for a group, layer, weight or prior that does not exist or is negative, for
// another number of heads, or for other bins with gains.
Profile renew_profile(const Profile& profile, std::size_t group, std::span<const LayerSamples> samples, float prior,
                      int threads);

}  // namespace paro
