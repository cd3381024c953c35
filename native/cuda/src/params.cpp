// Sizes, scratch and plan of a call: everything about AttentionParams that needs no kernel.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "paro/cuda/launch.h"
#include "paro/error.h"
#include "paro/limits.h"
#include "paro/token_layout.h"

namespace paro::cuda {
namespace {

FastDiv fast_div(std::int64_t divisor) {
    const auto d = static_cast<std::uint32_t>(divisor);
    const auto shift = static_cast<std::uint32_t>(d == 1 ? 0 : 32 - std::countl_zero(d - 1));
    const std::uint64_t multiplier = (std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - d) / d + 1;
    return {d, static_cast<std::uint32_t>(multiplier), shift};
}

OrderParams order_params(const Grid& grid, AxisOrder order) {
    const std::array<std::int32_t, 3> sides = grid.sides(), stride = {grid.h * grid.w, grid.w, 1};
    const std::array<int, 3> axis = axes(order);
    return {fast_div(std::int64_t{sides[axis[1]]} * sides[axis[2]]),
            fast_div(sides[axis[2]]),
            {stride[axis[0]], stride[axis[1]], stride[axis[2]]}};
}

BlockParams block_params(const TokenLayout& layout, const char* name, std::int32_t block) {
    require_tile(name, block);
    const BlockLayout blocks = block_layout(layout, block);
    return {block, static_cast<std::int32_t>(blocks.prefix_blocks), static_cast<std::int32_t>(blocks.grid_blocks),
            static_cast<std::int32_t>(blocks.suffix_blocks)};
}

// Hands out pieces of one allocation; with base null it only counts.
class Carver {
   public:
    explicit Carver(std::byte* base) : base_(base) {}
    template <class T>
    void take(T*& piece, std::int64_t count) {
        piece = count > 0 ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (static_cast<std::size_t>(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    }
    std::size_t used() const { return used_; }
    // Tiles start on this many bytes.
    static constexpr std::size_t kAlign = 1024;

   private:
    std::byte* base_;
    std::size_t used_ = 0;
};

// float2 is only declared to compilers without CUDA's types.
using Pair = float[2];

std::size_t carve_queries(AttentionParams& p, std::byte* base) {
    Carver carver(base);
    const std::int64_t rows = std::int64_t{p.slots()} * p.q_blocks.blocks() * p.q_blocks.block;
    if (p.precision == Precision::int8) {
        carver.take(p.packed.q, rows * p.head_dim);
        carver.take(p.packed.q_scale, rows);
    }
    return carver.used();
}

std::size_t carve_keys(AttentionParams& p, std::byte* base) {
    Carver carver(base);
    PackedParams& packed = p.packed;
    const std::int64_t slots = p.slots(), dim = p.head_dim;
    const std::int64_t pooled = slots * p.panels * p.kv_blocks.block;
    if (p.precision == Precision::int8) {
        const std::int64_t tile_bytes = slots * p.key_tiles() * p.key_tile();
        carver.take(packed.k, tile_bytes);
        carver.take(packed.v, tile_bytes);
        Pair* scales = nullptr;
        carver.take(scales, slots * p.key_tiles());
        packed.kv_scale = reinterpret_cast<float2*>(scales);
        carver.take(packed.channel, slots * dim);
        carver.take(packed.shift, slots * dim);
        carver.take(packed.channel_inverse, slots * dim);
        carver.take(packed.partial, slots * p.chunks * 2 * dim);
        carver.take(packed.pooled_k, pooled * dim);
        carver.take(packed.pooled_v, pooled * dim);
        carver.take(packed.counters, slots + 1);
    } else {
        carver.take(packed.k, pooled * dim * 2);
        carver.take(packed.v, pooled * dim * 2);
    }
    return carver.used();
}

std::byte* align(void* base) {
    const auto address = reinterpret_cast<std::uintptr_t>(base);
    return reinterpret_cast<std::byte*>((address + Carver::kAlign - 1) / Carver::kAlign * Carver::kAlign);
}

}  // namespace

namespace {

// A last block with at most this share of a whole one's tokens has its pooled key in a panel of its own.
constexpr std::int32_t kFewTokens = 8;

void place_pooled(AttentionParams& p) {
    const std::int32_t last = p.kv_blocks.grid_blocks - 1, block = p.kv_blocks.block;
    const std::int32_t tokens = p.layout.grid - last * block;
    const bool apart = p.precision == Precision::int8 && kFewTokens * tokens <= block;
    p.last_pooled = apart ? (last + block - 1) / block * block : last;
    p.panels = p.tail ? p.last_pooled / block + 1 : 0;
}

}  // namespace

void set_sizes(AttentionParams& p, const Sizes& sizes) {
    require(p.batch >= 1, "batch", "must be at least 1", p.batch);
    require(p.heads >= 1, "heads", "must be at least 1", p.heads);
    require_head_dim(p.head_dim);
    require(p.precision == Precision::int8 || p.precision == Precision::bf16, "precision", "must be int8 or bf16",
            static_cast<int>(p.precision));
    require(std::isfinite(p.sm_scale) && p.sm_scale > 0.0f, "sm_scale", "must be finite and above 0", p.sm_scale);
    const TokenLayout layout{sizes.prefix, {sizes.grid[0], sizes.grid[1], sizes.grid[2]}, sizes.suffix};
    validate(layout);
    // Blocks are numbered in 32 bits, padded places too.
    require(layout.length() <= std::int64_t{1} << 30, "layout", "must hold at most 2^30 tokens", layout.length());
    p.layout.prefix = sizes.prefix;
    p.layout.grid = static_cast<std::int32_t>(layout.grid.size());
    p.layout.suffix = sizes.suffix;
    for (const AxisOrder order : kAxisOrders) {
        p.layout.orders[static_cast<std::size_t>(order)] = order_params(layout.grid, order);
    }
    p.q_blocks = block_params(layout, "block_q", sizes.block_q);
    p.kv_blocks = block_params(layout, "block_kv", sizes.block_kv);
    const std::int64_t tiles = std::int64_t{p.batch} * p.heads * p.q_blocks.blocks();
    require(tiles < std::int64_t{1} << 30, "batch times heads times query tiles", "must be below 2^30", tiles);
    place_pooled(p);
    // Long enough for a CTA to stream, few enough for the last of them to sum up quickly.
    p.chunks = std::clamp(p.layout.length() / 256, 1, 64);
    p.plan.mask_words = static_cast<std::int32_t>(plan_layout(p).mask_words());
}

std::size_t query_bytes(const AttentionParams& p) {
    AttentionParams copy = p;
    return carve_queries(copy, nullptr) + Carver::kAlign;
}

std::size_t key_bytes(const AttentionParams& p) {
    AttentionParams copy = p;
    return carve_keys(copy, nullptr) + Carver::kAlign;
}

void place_queries(AttentionParams& p, void* base) { carve_queries(p, align(base)); }
void place_keys(AttentionParams& p, void* base) { carve_keys(p, align(base)); }

PlanWords plan_layout(const AttentionParams& p) { return {p.heads, p.q_blocks.grid_blocks, p.kv_blocks.grid_blocks}; }

void place_plan(AttentionParams& p, const void* words) {
    const PlanWords layout = plan_layout(p);
    const auto* first = static_cast<const std::int32_t*>(words);
    p.plan.orders = first + layout.orders();
    p.plan.schedule = first + layout.schedule();
    p.plan.masks = reinterpret_cast<const std::uint32_t*>(first + layout.masks());
}

}  // namespace paro::cuda
