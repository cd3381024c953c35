#include "paro/token_layout.h"

#include <algorithm>
#include <limits>

#include "paro/error.h"
#include "paro/limits.h"

namespace paro {

namespace {

constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max();

std::int64_t blocks_of(std::int64_t tokens, std::int32_t block) { return (tokens + block - 1) / block; }

}  // namespace

void validate(const TokenLayout& layout) {
    validate(layout.grid);
    require(layout.prefix >= 0, "layout.prefix", "must not be negative", layout.prefix);
    require(layout.suffix >= 0, "layout.suffix", "must not be negative", layout.suffix);
    // Each apart first: their sum could overflow.
    require(layout.prefix <= kMaxLength, "layout.prefix", "must be at most 2^31 - 1", layout.prefix);
    require(layout.suffix <= kMaxLength, "layout.suffix", "must be at most 2^31 - 1", layout.suffix);
    require(layout.length() <= kMaxLength, "layout", "must hold at most 2^31 - 1 tokens", layout.length());
}

BlockLayout block_layout(const TokenLayout& layout, std::int32_t block) {
    validate(layout);
    require_block("block", block);
    return {block, blocks_of(layout.prefix, block), blocks_of(layout.grid.size(), block),
            blocks_of(layout.suffix, block)};
}

std::vector<std::int32_t> pack_index(const TokenLayout& layout, AxisOrder order, std::int32_t block) {
    const BlockLayout blocks = block_layout(layout, block);
    std::vector<std::int32_t> result(static_cast<std::size_t>(blocks.padded_length()), -1);
    const auto prefix = static_cast<std::int32_t>(layout.prefix);
    const auto suffix_token = static_cast<std::int32_t>(layout.prefix + layout.grid.size());
    const std::int64_t suffix_place = (blocks.prefix_blocks + blocks.grid_blocks) * block;

    for (std::int32_t i = 0; i < prefix; ++i) result[i] = i;
    const std::vector<std::int32_t> grid = permutation(layout.grid, order);
    std::transform(grid.begin(), grid.end(), result.begin() + blocks.prefix_blocks * block,
                   [prefix](std::int32_t token) { return prefix + token; });
    for (std::int32_t i = 0; i < layout.suffix; ++i) result[suffix_place + i] = suffix_token + i;
    return result;
}

std::int32_t tokens_in_block(const TokenLayout& layout, const BlockLayout& blocks, std::int64_t index) {
    require(index >= 0 && index < blocks.blocks(), "block index",
            "must be below " + std::to_string(blocks.blocks()) + ", the layout's blocks", index);
    std::int64_t tokens = layout.prefix, first = 0;
    if (blocks.is_grid_block(index)) {
        tokens = layout.grid.size();
        first = blocks.prefix_blocks;
    } else if (index >= blocks.prefix_blocks) {
        tokens = layout.suffix;
        first = blocks.prefix_blocks + blocks.grid_blocks;
    }
    const std::int64_t left = tokens - (index - first) * blocks.block;
    return static_cast<std::int32_t>(std::min<std::int64_t>(blocks.block, left));
}

}  // namespace paro
