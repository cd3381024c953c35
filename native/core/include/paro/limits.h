// Limits that several parts check, each spelled here alone.
#pragma once

#include <array>
#include <cstdint>

#include "paro/error.h"

namespace paro {

// Of a head, in every attention kernel.
inline constexpr std::array<std::int32_t, 2> kHeadDims = {64, 128};
// Sides of the blocks that GPU kernels know and a run may ask for.
inline constexpr std::array<std::int32_t, 2> kTiles = {64, 128};
// The largest side of a block anywhere.
inline constexpr std::int32_t kMaxBlock = 4096;

// The three throw Error naming the argument.
inline void require_head_dim(std::int32_t head_dim) {
    require(head_dim == kHeadDims[0] || head_dim == kHeadDims[1], "head_dim", "must be 64 or 128", head_dim);
}

inline void require_tile(std::string_view name, std::int32_t block) {
    require(block == kTiles[0] || block == kTiles[1], name, "must be 64 or 128", block);
}

inline void require_block(std::string_view name, std::int32_t block) {
    require(block >= 1 && block <= kMaxBlock, name, "must be 1 to 4096", block);
}

}  // namespace paro
