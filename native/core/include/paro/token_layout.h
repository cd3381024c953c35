// Where the grid lies in a model's sequence, and how the three parts are cut into blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "paro/axis_order.h"

namespace paro {

// prefix | grid F x H x W | suffix, counted in tokens. Prefix and suffix (text, references) are never permuted.
struct TokenLayout {
    std::int64_t prefix = 0;
    Grid grid;
    std::int64_t suffix = 0;

    std::int64_t length() const { return prefix + grid.size() + suffix; }
    friend bool operator==(const TokenLayout&, const TokenLayout&) = default;
};

// Throws Error for negative parts, a bad grid or a length beyond 2^31 - 1.
void validate(const TokenLayout& layout);

// The sequence cut into blocks of `block` tokens. Each part is padded apart, so that a mask speaks of grid blocks only
// and does not change with the text's length.
struct BlockLayout {
    std::int32_t block = 64;
    std::int64_t prefix_blocks = 0, grid_blocks = 0, suffix_blocks = 0;

    std::int64_t blocks() const { return prefix_blocks + grid_blocks + suffix_blocks; }
    std::int64_t padded_length() const { return blocks() * block; }
    std::int64_t first_grid_block() const { return prefix_blocks; }
    bool is_grid_block(std::int64_t index) const {
        return index >= prefix_blocks && index < prefix_blocks + grid_blocks;
    }
};

// Throws Error unless 1 <= block <= 4096.
BlockLayout block_layout(const TokenLayout& layout, std::int32_t block);

// padded_length() entries: the original token that stands at each packed place, -1 for padding.
std::vector<std::int32_t> pack_index(const TokenLayout& layout, AxisOrder order, std::int32_t block);

// How many of a block's places hold tokens: `block` except in the last block of each part.
std::int32_t tokens_in_block(const TokenLayout& layout, const BlockLayout& blocks, std::int64_t index);

}  // namespace paro
