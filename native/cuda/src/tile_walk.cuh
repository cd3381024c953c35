// Which key tiles a query tile visits, found by walking the bits of its mask row.
#pragma once

#include "paro/cuda/params.h"

namespace paro::cuda {

// Visits keys in steps of 64: prefix blocks, the grid blocks of the mask row (all of them for query tiles outside the
// grid), suffix blocks, then panels of pooled keys that hold a skipped block. Steps without any key are left out.
// Every thread walks alike: all of it is uniform.
template <int BLOCK>
class TileWalk {
   public:
    // `row`: the tile's mask row, or null for a query tile outside the grid.
    __device__ TileWalk(const AttentionParams& p, const std::uint32_t* row)
        : p_(p),
          row_(row),
          range_end_(row ? p.kv_blocks.prefix_blocks : p.kv_blocks.blocks()),
          word_(row ? 0 : p.plan.mask_words),
          panel_(row ? 0 : p.panels) {}

    std::int32_t tile = -1, half = 1;  // keys 64 * half .. of key tile `tile`
    std::uint64_t valid = 0;           // which of the 64 count

    __device__ bool pooled() const { return tile >= p_.kv_blocks.blocks(); }

    // False at the end, and ever after.
    __device__ bool next() {
        do {
            if (BLOCK == 128 && half == 0 && tile >= 0) {
                half = 1;
            } else {
                half = 0;
                tile = next_tile();
                if (tile < 0) return false;
            }
            valid = columns(tile, half);
        } while (valid == 0);
        return true;
    }

    // For callers that take whole tiles: the next one, or -1; some may hold no key that counts.
    __device__ std::int32_t next_tile() {
        if (next_ < range_end_) return next_++;
        while (bits_ == 0 && word_ < p_.plan.mask_words) bits_ = row_[word_++];
        if (bits_ != 0) {
            const std::int32_t bit = __ffs(static_cast<int>(bits_)) - 1;
            bits_ &= bits_ - 1;
            return p_.kv_blocks.prefix_blocks + (word_ - 1) * 32 + bit;
        }
        if (range_end_ < p_.kv_blocks.blocks()) {
            next_ = p_.kv_blocks.prefix_blocks + p_.kv_blocks.grid_blocks;
            range_end_ = p_.kv_blocks.blocks();
            if (next_ < range_end_) return next_++;
        }
        return panel_ < p_.panels ? p_.kv_blocks.blocks() + panel_++ : -1;
    }

    // Which of the keys 64 * of .. of tile `which` count.
    __device__ std::uint64_t columns(std::int32_t which, int of) const {
        const std::int32_t blocks = p_.kv_blocks.blocks();
        if (which < blocks) return low_bits(p_.layout.tokens_in(p_.kv_blocks, which) - 64 * of);
        const std::int32_t first = (which - blocks) * BLOCK + 64 * of, word = first / 32;
        const std::uint64_t low = word < p_.plan.mask_words ? row_[word] : 0;
        const std::uint64_t high = word + 1 < p_.plan.mask_words ? row_[word + 1] : 0;
        const std::uint64_t skipped = ~(low | high << 32) & low_bits(p_.pooled_in_order() - first);
        const std::int32_t at = p_.last_pooled - first, last = p_.kv_blocks.grid_blocks - 1;
        if (!p_.last_pooled_apart() || at < 0 || at >= 64) return skipped;
        return skipped | std::uint64_t{~row_[last / 32] >> last % 32 & 1} << at;
    }

   private:
    __device__ static std::uint64_t low_bits(std::int32_t count) {
        return count >= 64 ? ~std::uint64_t{0} : count <= 0 ? 0 : (std::uint64_t{1} << count) - 1;
    }

    const AttentionParams& p_;
    const std::uint32_t* row_;
    std::int32_t next_ = 0, range_end_, word_, panel_;
    std::uint32_t bits_ = 0;
};

// Column of the pooled key of the last grid block within a step that starts at pooled key `first`, if that block is not
// full; else -1. share: how full it is.
template <int BLOCK, int STEP>
__device__ __forceinline__ int ragged_column(const AttentionParams& p, std::int32_t first, float& share) {
    const std::int32_t column = p.last_pooled - first;
    const std::int32_t tokens = p.layout.grid - (p.kv_blocks.grid_blocks - 1) * BLOCK;
    share = static_cast<float>(tokens) * (1.0f / BLOCK);
    return tokens < BLOCK && column >= 0 && column < STEP ? column : -1;
}

}  // namespace paro::cuda
