// A plan as one array of int32 words: what GPU kernels walk, on the host or on a device. Nobody else knows the layout.
#pragma once

#include <cstdint>
#include <vector>

#include "paro/block_mask.h"

namespace paro {

struct Plan;

// The parts stand in this order:
//   orders   [heads]                    numbers of AxisOrder
//   schedule [heads][rows]              a head's mask rows, those with the most blocks first
//   masks    [heads][rows][mask_words]  bit c % 32 of word c / 32: key block c is computed
struct PlanWords {
    std::int64_t heads = 0;
    std::int64_t rows = 0;  // grid query tiles
    std::int64_t cols = 0;  // grid key blocks

    constexpr std::int64_t mask_words() const { return words_of(cols); }
    // Where a part begins.
    constexpr std::int64_t orders() const { return 0; }
    constexpr std::int64_t schedule() const { return heads; }
    constexpr std::int64_t masks() const { return heads + heads * rows; }
    // Words in all.
    constexpr std::int64_t count() const { return masks() + heads * rows * mask_words(); }
};

PlanWords plan_layout(const Plan& plan);
std::vector<std::int32_t> plan_words(const Plan& plan);

}  // namespace paro
