// What every launch goes through.
#pragma once

#include <cstdint>
#include <limits>

#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

inline unsigned grid_size(std::int64_t blocks) {
    require(blocks > 0 && blocks <= std::numeric_limits<std::int32_t>::max(), "grid", "must be 1 to 2^31 - 1 CTAs",
            blocks);
    return static_cast<unsigned>(blocks);
}

}  // namespace paro::cuda
