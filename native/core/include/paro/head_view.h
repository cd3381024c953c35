// One head as it is looked at: its map in the original order and in its own, with what a mask keeps of each.
#pragma once

#include <array>

#include "paro/paint.h"
#include "paro/profile.h"

namespace paro {

struct HeadView {
    BlockMap map;
    BlockRanking ranking;
    double density = 0.0;  // of the mask
    Scale scale;           // shared by the views of one head

    double retained() const { return ranking.retained(density); }
    // The whole map as side x side pixels. Throws Error unless 1 <= side <= 4096.
    Image picture(int side, Overlay overlay) const;
};

// Of a profile's head in one timestep group, on the profile's first grid in blocks of `block` x `block`: in the order
// FHW and in its own. A head's own density comes before `density`. Throws Error for a layer, head or group that is not
// there, a bad block or density.
std::array<HeadView, 2> head_views(const Profile& profile, std::size_t layer, std::size_t head, std::size_t group,
                                   std::int32_t block, double density);

}  // namespace paro
