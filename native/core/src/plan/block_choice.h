// The blocks of greatest importance, and what they hold.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paro/block_mask.h"

namespace paro {

struct BlockChoice {
    BlockMask mask;
    double inside = 0.0, all = 0.0;  // mass of the chosen blocks and of all

    double retained() const { return all > 0.0 ? inside / all : 1.0; }
};

// make_mask of rows * cols values, with the sums of both sides. Throws Error unless 0 < density <= 1 and all are
// finite.
BlockChoice choose_blocks(std::span<const float> value, std::int64_t rows, std::int64_t cols, double density);

// Share of the mass that choose_blocks keeps at each density, but for the blocks that tiles without one get on top.
std::vector<double> retained_at(std::span<const float> value, std::span<const double> densities);

}  // namespace paro
