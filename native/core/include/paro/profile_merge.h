// Profiles and kernels brought together, all by one rule: the merge rule.
//
// The merge rule. Two kernels of a head become their mean, each weighted by what it was made from: prompts where whole
// profiles meet, sampled rows where a run renews one. Where one of them never observed an offset (0) the other counts
// alone. Kernels of other bins are read in the common ones first. Head by head: what is locked keeps its order, and a
// density of its own stays.
#pragma once

#include <span>
#include <vector>

#include "paro/profile.h"

namespace paro {

// Throws Error naming what differs if they are of different families, fingerprints, patches, heads or head_dim, or if
// fresh's first grid is far from old's.
void require_mergeable(const Profile& old, const Profile& fresh);

// Both, weighted by the prompts that each one saw, equally where neither says. Bins are those that reach farther, the
// finer ones of two that reach equally far. Orders are chosen anew at `density`, mean over the groups, on fresh's first
// grid, but for heads that are locked in `old`; all keep the density and lock they have there. A layer that one of them
// alone holds is taken over as it is, order, density and lock too. A profile of one timestep group counts for every
// group of the other. Model and defaults are old's, the calibration is fresh's with both's grids and prompts. Throws
// Error as require_mergeable, and for a profile that is not valid.
Profile merge_profiles(const Profile& old, const Profile& fresh, double density, int threads);

// The profile, and of `other` the layers that it lacks, as merge_profiles takes them over. Its own layers keep what
// they hold, in the common bins and timestep groups; its calibration and defaults stay. Throws Error as merge_profiles.
Profile complete_profile(const Profile& profile, const Profile& other, int threads);

// What was sampled of one layer of a profile, in groups that count differently (halves of a run).
struct LayerSamples {
    struct Group {
        std::vector<const OffsetAccumulator*> heads;
        double weight = 1.0;  // of one of its rows
    };
    std::size_t layer = 0;
    std::vector<Group> groups;
};

// The profile with this timestep group's kernels renewed: its own count as `prior` rows each, the samples by their
// weighted rows. Orders, densities and bins stay, as do heads without rows and layers without samples. All heads in
// parallel over `threads`. Throws Error for a group, layer, weight or prior that does not exist or is negative, or for
// another number of heads.
Profile renew_profile(const Profile& profile, std::size_t group, std::span<const LayerSamples> samples, float prior,
                      int threads);

}  // namespace paro
