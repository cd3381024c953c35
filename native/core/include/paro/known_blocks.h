// What is known of a layer's blocks beside its kernels, in the heads' own orders: masks are made of all of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paro/importance.h"

namespace paro {

// Only what `sums` and `counts` or `exact` hold is known; nothing: empty. The memory stays the caller's.
struct KnownBlocks {
    // What samples saw: sums [heads, rows, cols] of softmax rows by block, counts [heads, rows] of queries. A mask is
    // then made of the mean mass a query, to which a head's own map contributes as `prior` queries a tile do.
    std::span<const float> sums, counts;
    float prior = 0.0f;
    // By head what exact calibration summed, as a capture holds it, or nothing: u8 [cells, cells], 0 = nothing, else
    // 2^((code - 255) * 24 / 254) of the greatest. A cell is as many tokens wide and high, 64 doubled any number of
    // times. Such a map contributes as `exact_prior` queries a tile do.
    std::vector<std::span<const std::uint8_t>> exact;
    float exact_prior = 0.0f;
    // Tiles of a mask that a row of `sums` takes together, and key blocks that a column does. Where that is more than
    // one, the samples say how much mass a square of blocks has, and the head's own map how it lies within.
    std::int32_t pool_q = 1, pool_kv = 1;

    bool empty() const { return counts.empty() && exact.empty(); }
};

// Throws Error naming the member: sizes that are not those of so many heads at this grid and tile, a prior or a pool
// that is not above 0 where samples are blended, cells that are neither whole blocks nor whole parts of them.
void validate(const KnownBlocks& known, std::size_t heads, const Grid& grid, std::int32_t block_q,
              std::int32_t block_kv);

// Brings what is known of `head` into the map of its kernel, made by importance for the same grid. Exact masses come
// first: where cells are larger than blocks, spread within each as the kernel has it, where smaller, summed; the map's
// total stays. Then samples. Expects known to be valid.
void apply_known(const KnownBlocks& known, std::size_t head, const Grid& grid, BlockMap& map);

// Adds sampled rows to what samples saw, which a KnownBlocks then lends: row i of `values` [n, cols] belongs to row
// rows[i] of `sums` [all heads' rows, cols], and counts there. Throws Error naming the argument: sizes that do not fit
// each other, a row that there is not; nothing is added then.
void add_samples(std::span<float> sums, std::span<float> counts, std::span<const std::int64_t> rows,
                 std::span<const float> values);

}  // namespace paro
