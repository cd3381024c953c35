// Random kernels and the pair by pair reference that the fast paths are held against.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "paro/offset_kernel.h"

namespace paro::test {

// Values over 20 octaves, a few exact zeros.
inline OffsetKernel random_kernel(const Bins& bins, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    OffsetKernel kernel{bins, std::vector<float>(static_cast<std::size_t>(bins.size()))};
    for (float& value : kernel.value) {
        const double octaves = 20.0 * uniform(random), scale = 0.2 * uniform(random);
        value = random() % 10 == 0 ? 0.0f : static_cast<float>(scale * std::exp2(-octaves));
    }
    return kernel;
}

// The full map of all pairs in original order.
inline std::vector<float> rebuild_map(const OffsetKernel& kernel, const Grid& grid) {
    std::vector<float> map;
    map.reserve(static_cast<std::size_t>(grid.size() * grid.size()));
    const std::int32_t size = static_cast<std::int32_t>(grid.size());
    for (std::int32_t q = 0; q < size; ++q) {
        for (std::int32_t k = 0; k < size; ++k) {
            map.push_back(
                kernel.value[kernel.bins.index(k / grid.w / grid.h - q / grid.w / grid.h,
                                               k / grid.w % grid.h - q / grid.w % grid.h, k % grid.w - q % grid.w)]);
        }
    }
    return map;
}

}  // namespace paro::test
