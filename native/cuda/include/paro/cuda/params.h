// What the CUDA kernels are launched with: plain structs, raw pointers, no torch. One AttentionParams serves packing
// and every attention kernel of a call; README.md beside include/ draws the memory layout.
#pragma once

#include <cstddef>
#include <cstdint>

#include "paro/cuda/packed_layout.h"

#if defined(__CUDACC__)
#include <vector_types.h>
#else
struct float2;
struct float4;
#endif

namespace paro::cuda {

enum class DType : std::int32_t { f32, f16, bf16 };
// int4 is named so that dispatch and plans need not change when it comes; nothing runs it yet.
enum class Precision : std::int32_t { int8, bf16, int4 };
// portable chooses between its kernels by the GPU's shared memory; narrow names the one for little of it.
enum class Path : std::int32_t { automatic, portable, hopper, narrow };

// A CUstream or cudaStream_t.
using Stream = void*;

// What a call's layout and blocks follow from (set_sizes in launch.h).
struct Sizes {
    std::int32_t prefix, grid[3], suffix, block_q, block_kv;  // grid F, H, W
};

// Quotients by a divisor known at launch. Exact for 0 <= n < 2^31.
struct FastDiv {
    std::uint32_t divisor, multiplier, shift;
    PARO_HD std::int32_t operator()(std::int32_t n) const {
#if defined(__CUDA_ARCH__)
        const std::uint32_t high = __umulhi(static_cast<std::uint32_t>(n), multiplier);
#else
        const auto high = static_cast<std::uint32_t>((std::uint64_t{static_cast<std::uint32_t>(n)} * multiplier) >> 32);
#endif
        return static_cast<std::int32_t>((high + static_cast<std::uint32_t>(n)) >> shift);
    }
};

// One of the six orders: the i-th grid token is a * stride[0] + b * stride[1] + c * stride[2], (a, b, c) the digits of
// i with the slowest axis first.
struct OrderParams {
    FastDiv by_plane, by_row;  // sizes of the two faster axes together, and of the fastest
    std::int32_t stride[3];
};

// prefix | grid | suffix cut into blocks, each part padded apart (paro/token_layout.h).
struct BlockParams {
    std::int32_t block, prefix_blocks, grid_blocks, suffix_blocks;
    PARO_HD std::int32_t blocks() const { return prefix_blocks + grid_blocks + suffix_blocks; }
    PARO_HD bool is_grid(std::int32_t index) const {
        return static_cast<std::uint32_t>(index - prefix_blocks) < static_cast<std::uint32_t>(grid_blocks);
    }
};

struct LayoutParams {
    std::int32_t prefix, grid, suffix;  // tokens
    OrderParams orders[6];              // by AxisOrder: FHW FWH HFW HWF WFH WHF
    PARO_HD std::int32_t length() const { return prefix + grid + suffix; }

    // How many places of a block hold tokens; the others are padding.
    PARO_HD std::int32_t tokens_in(const BlockParams& blocks, std::int32_t index) const {
        std::int32_t tokens = prefix, first = 0;
        if (index >= blocks.prefix_blocks + blocks.grid_blocks) {
            tokens = suffix;
            first = blocks.prefix_blocks + blocks.grid_blocks;
        } else if (index >= blocks.prefix_blocks) {
            tokens = grid;
            first = blocks.prefix_blocks;
        }
        const std::int32_t left = tokens - (index - first) * blocks.block;
        return left < blocks.block ? left : blocks.block;
    }
    // The original token at place `row` of a block; row < tokens_in(blocks, index).
    PARO_HD std::int32_t token(const BlockParams& blocks, std::int32_t order, std::int32_t index,
                               std::int32_t row) const {
        if (index < blocks.prefix_blocks) return index * blocks.block + row;
        index -= blocks.prefix_blocks;
        if (index >= blocks.grid_blocks) return prefix + grid + (index - blocks.grid_blocks) * blocks.block + row;
        const OrderParams& o = orders[order];
        const std::int32_t i = index * blocks.block + row, a = o.by_plane(i);
        const std::int32_t rest = i - a * static_cast<std::int32_t>(o.by_plane.divisor), b = o.by_row(rest);
        const std::int32_t c = rest - b * static_cast<std::int32_t>(o.by_row.divisor);
        return prefix + a * o.stride[0] + b * o.stride[1] + c * o.stride[2];
    }
};

// (batch, heads, tokens, head_dim), strides in elements, head_dim contiguous, rows on 16 bytes.
struct TensorParams {
    const void* data;
    std::int64_t stride_b, stride_h, stride_n;
};
struct OutputParams {
    void* data;
    std::int64_t stride_b, stride_h, stride_n;
};

// The parts of a plan's words on the device (paro/plan_words.h).
struct PlanParams {
    const std::int32_t* orders;
    const std::int32_t* schedule;
    const std::uint32_t* masks;
    std::int32_t mask_words;
};

// Scratch of one call. slot = batch index * heads + head. Key tiles 0 .. kv.blocks() - 1 are the key blocks; with the
// tail, `panels` more follow, each of block_kv pooled keys: pooled key number j = panel * block_kv + place stands for
// grid block j and has the mean key and value of it. The last grid block stands at `last_pooled`. The rest is zeros.
struct PackedParams {
    std::int8_t* q;    // [slots][q.blocks()] tiles [block_q][head_dim]
    float* q_scale;    // [slots][q.blocks() * block_q] times sm_scale * log2(e) / head_dim
    std::int8_t* k;    // [slots][key_tiles] tiles [block_kv][head_dim], zeros where no token stands
    std::uint8_t* v;   // [slots][key_tiles] tiles [head_dim][block_kv], keys permuted (v_place), kValueShift added
    float2* kv_scale;  // [slots][key_tiles] {k_scale, v_scale times kScaleUp}
    float* channel;    // [slots][head_dim] factor per channel of v, applied once at the end
    float* shift;      // [slots][head_dim] subtracted from every key (pack only)
    float* channel_inverse;  // [slots][head_dim] (pack only)
    float* partial;          // [slots][chunks][2][head_dim] sums on the way to shift and channel (pack only)
    float* pooled_k;         // [slots][panels * block_kv][head_dim] mean of k - shift, rotated (int8); bf16: mean of k
    float* pooled_v;         // [slots][panels * block_kv][head_dim] mean of v / channel; bf16: mean of v
    std::int32_t*
        counters;  // [slots + 1] zeroed at the start of a call; the last one is for an attention kernel's own use
};

struct AttentionParams {
    TensorParams q, k, v;
    OutputParams o;
    DType dtype;  // of q, k, v and o
    Precision precision;
    std::int32_t batch, heads, head_dim;  // head_dim 64 or 128
    float sm_scale;
    std::int32_t tail;    // 0 or 1
    std::int32_t panels;  // 0 without tail, else as many as hold a pooled key for each kv block of the grid
    // Number of the last grid block's pooled key: the block's own, or the first of a further panel. In int8 a mean over
    // few tokens is so great, and its weight so small, that beside the others' both would lose their 8 bits.
    std::int32_t last_pooled;
    std::int32_t chunks;  // how many parts of the sequence are summed apart for shift and channel
    LayoutParams layout;
    BlockParams q_blocks, kv_blocks;
    PlanParams plan;
    PackedParams packed;
    // One word, or null. Given: a value of o that is not finite in o's dtype becomes 0, and this word then 1; it stays
    // as it is where all of o is finite.
    std::int32_t* broken;

    PARO_HD std::int32_t slots() const { return batch * heads; }
    PARO_HD std::int32_t key_tiles() const { return kv_blocks.blocks() + panels; }
    PARO_HD bool last_pooled_apart() const { return last_pooled != kv_blocks.grid_blocks - 1; }
    // Grid blocks whose pooled keys have the blocks' own numbers.
    PARO_HD std::int32_t pooled_in_order() const { return kv_blocks.grid_blocks - (last_pooled_apart() ? 1 : 0); }
    PARO_HD std::int32_t work_items() const { return slots() * q_blocks.blocks(); }
    // Sizes of tiles in bytes.
    PARO_HD std::int64_t q_tile() const { return std::int64_t{q_blocks.block} * head_dim; }
    PARO_HD std::int64_t key_tile() const { return std::int64_t{kv_blocks.block} * head_dim; }

    // The i-th query tile to take, 0 <= i < work_items(). Tiles outside the grid come first: they see every key and
    // take longest. Then the grid tiles slot by slot, so that a head's keys and values stay in L2, longest first.
    PARO_HD void work_item(std::int32_t i, std::int32_t& slot, std::int32_t& tile) const {
        const std::int32_t grid = q_blocks.grid_blocks, outside = q_blocks.blocks() - grid;
        if (i < slots() * outside) {
            slot = i / outside;
            tile = i - slot * outside;
            if (tile >= q_blocks.prefix_blocks) tile += grid;
            return;
        }
        i -= slots() * outside;
        slot = i / grid;
        tile = q_blocks.prefix_blocks + plan.schedule[std::int64_t{slot % heads} * grid + (i - slot * grid)];
    }
    // Mask row of a grid query tile.
    PARO_HD const std::uint32_t* mask_row(std::int32_t head, std::int32_t tile) const {
        return plan.masks +
               (std::int64_t{head} * q_blocks.grid_blocks + (tile - q_blocks.prefix_blocks)) * plan.mask_words;
    }
};

}  // namespace paro::cuda
