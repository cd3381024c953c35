// Attention mass by block, for any order and tile, and the masks made from it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paro/axis_order.h"
#include "paro/block_mask.h"
#include "paro/offset_kernel.h"

namespace paro {

// Grid query tiles x grid key blocks of one head in one order. value[row * cols + col] = mass of the block pair.
struct BlockMap {
    AxisOrder order = AxisOrder::FHW;
    std::int32_t block_q = 64, block_kv = 64;
    std::int64_t rows = 0, cols = 0;
    std::vector<float> value;

    double total() const;
};

// An all-zero map of the right size. Throws Error for a bad grid or tile (1 <= block <= 4096).
BlockMap empty_map(const Grid& grid, AxisOrder order, std::int32_t block_q, std::int32_t block_kv);

// The same without its values.
BlockMap map_shape(const Grid& grid, AxisOrder order, std::int32_t block_q, std::int32_t block_kv);

// Sum of the kernel's offsets over the token pairs of every block pair, exactly (second differences of running sums).
BlockMap kernel_sums(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                     std::int32_t block_kv);

// kernel_sums with every query's mass the same, as a softmax has it: near the grid's borders a mean by offset adds up
// to less. The total stays.
BlockMap importance(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                    std::int32_t block_kv);
// The same into `map`, whose memory is used again: building many plans would spend as long on fresh memory as on sums.
void importance(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                std::int32_t block_kv, BlockMap& map);

// Adds exact post-softmax rows (grid keys, original order) of the given grid queries (original order) to a map made by
// empty_map. rows: queries.size() * grid.size() values. Throws Error on mismatching sizes.
void accumulate_rows(BlockMap& map, const Grid& grid, std::span<const std::int32_t> queries,
                     std::span<const float> rows);

// Exactly round(density * rows * cols) blocks of greatest importance, ties to the lower index (row-major); a query tile
// left without a block gets its best one on top, and that counts. Throws Error unless 0 < density <= 1 and all finite.
BlockMask make_mask(const BlockMap& map, double density);

// Share of the map's mass inside the mask; 1 for an all-zero map. Throws Error on mismatching sizes.
double retained_mass(const BlockMap& map, const BlockMask& mask);

}  // namespace paro
