// Kernels in other bins, and means of two: the merge rule of paro/profile_merge.h.
#pragma once

#include <array>
#include <vector>

#include "paro/offset_kernel.h"

namespace paro {

// From one set of bins to another. What bins share is found once, for all kernels of a layer or profile.
class Rebin {
   public:
    Rebin(const Bins& source, const Bins& target);
    // The kernel's values at the target's edges; offsets beyond the source's own reach stay unobserved (0).
    OffsetKernel operator()(OffsetKernel kernel) const;

   private:
    // Shares of the source bins in one target bin of an axis, none beyond the source's own reach. To go from signed
    // offsets to even ones is the mean of both sides; back, every side gets the value of |offset|.
    struct Share {
        std::int32_t bin;
        float weight;
    };
    using AxisShares = std::vector<std::vector<Share>>;
    static AxisShares shares(const AxisBins& source, const AxisBins& target);

    Bins source_, target_;
    std::array<AxisShares, 3> axis_;
};

// `known` becomes the mean of both, counting as `weight` (0 to 1) itself; where one never observed an offset (0) the
// other counts alone. Both have the same bins.
void blend(OffsetKernel& known, const OffsetKernel& fresh, double weight);

}  // namespace paro
