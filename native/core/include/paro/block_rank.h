// Blocks of a map in the order in which masks take them in: one sort gives the mask, the count and the retained mass of
// every density, which is what a density slider needs.
#pragma once

#include <cstdint>
#include <vector>

#include "paro/importance.h"

namespace paro {

// As make_mask and retained_mass, for all densities at once. A tile's best block is in every mask (a query tile left
// without a block gets it), so its entry is 0.
struct BlockRanking {
    std::int64_t rows = 0, cols = 0;
    // rows * cols, row-major: the block is in the mask of a budget of n blocks if entry < max(n, 1).
    std::vector<std::uint32_t> entry;
    // rows * cols + 1 sums: mass[n] = of the n blocks of greatest importance.
    std::vector<double> mass;
    // By rank, ascending: each query tile's best block. extra[i] = mass of best_rank[i..], one entry more than rows.
    std::vector<std::uint32_t> best_rank;
    std::vector<double> extra;

    std::int64_t blocks() const { return rows * cols; }
    // round(density * blocks), the number of blocks asked for. Throws Error unless 0 < density <= 1.
    std::int64_t budget(double density) const;
    bool contains(std::int64_t block, std::int64_t budget) const {
        return entry[static_cast<std::size_t>(block)] < (budget > 0 ? static_cast<std::uint64_t>(budget) : 1u);
    }
    // Blocks that the mask holds: the budget and what tiles without a block got on top.
    std::int64_t count(double density) const;
    // Share of the map's mass inside the mask; 1 for an all-zero map.
    double retained(double density) const;
    // Equal to make_mask of the map.
    BlockMask mask(double density) const;
};

// Throws Error for a map whose sizes do not fit or whose values are not finite.
BlockRanking rank_blocks(const BlockMap& map);

}  // namespace paro
