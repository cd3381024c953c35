// Block-sparse attention without quantisation, bf16 or fp16 with mma.sync, for every GPU from sm_80 on: the reference
// quality. Keys and values are gathered row by row from where the model left them, so nothing is packed but the tail's
// means.
#pragma once

#include <cstddef>

#include "cta_shapes.h"
#include "kernel.cuh"
#include "output.cuh"
#include "pack_queries.cuh"
#include "tile_walk.cuh"

namespace paro::cuda {
namespace {

constexpr int kTiles = kStepKeys / 8;
constexpr float kLog2e = 1.4426950408889634f;

struct StepInfo {
    std::uint64_t valid[kHalfStages];  // which keys count
    std::int32_t tile[kHalfStages];    // 2 * key tile + half
};

// Shared memory of a CTA; the mask row follows. Where the output leaves, its rows take the place of what comes first.
// Rows of 16-bit elements, mixed as row_offset says.
template <int D, int WARPS>
struct SharedMemory {
    struct Stage {
        std::uint16_t k[kStepKeys * D], v[kStepKeys * D];
    };
    std::uint16_t queries[WARPS * kWarpRows * D];
    Stage ring[kHalfStages];
    StepInfo info;

    __device__ std::uint32_t* mask() { return reinterpret_cast<std::uint32_t*>(this + 1); }
};
static_assert(sizeof(SharedMemory<128, 4>) == half_shared_bytes(128, 128, 0));

// Byte of 16-byte piece `piece` of a row of D 16-bit elements, mixed against bank conflicts.
template <int D>
__device__ __forceinline__ int row_offset(int row, int piece) {
    return row * 2 * D + ((piece ^ (row & 7)) << 4);
}

// Gathers rows of a tile to shared memory: each warp takes its share of them, a lane finds the place of one row.
template <class T, int D, int WARPS, int COUNT>
struct Gather {
    static constexpr int pieces = D / 8, per_pass = WARPS * 32 / pieces, in_warp = 32 / pieces;
    static constexpr int passes = COUNT / per_pass;
    static_assert(COUNT % per_pass == 0 && passes * in_warp <= 32);

    // The row whose place this lane finds.
    __device__ static int row() {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        return lane / in_warp * per_pass + warp * in_warp + lane % in_warp;
    }
    // `place`: of row(), counted in rows of `stride` elements from base; -1 for zeros.
    __device__ static void copy(const T* base, std::int64_t stride, std::int32_t place, std::uint32_t to) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, piece = lane % pieces;
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            const std::int32_t from = __shfl_sync(0xffffffffu, place, i * in_warp + lane / pieces);
            const int row = i * per_pass + warp * in_warp + lane / pieces;
            copy16_async(to + row_offset<D>(row, piece), base + (from < 0 ? 0 : from) * stride + piece * 8, from >= 0);
        }
    }
};

template <class T, int D, int WARPS>
__device__ __forceinline__ void copy_queries(const AttentionParams& p, std::int32_t slot, std::int32_t tile,
                                             std::uint32_t to) {
    using Rows = Gather<T, D, WARPS, WARPS * kWarpRows>;
    const int row = Rows::row();
    const bool valid = row < p.layout.tokens_in(p.q_blocks, tile);
    const std::int32_t order = p.plan.orders[slot % p.heads];
    Rows::copy(head_rows<T>(p.q, p, slot), p.q.stride_n, valid ? p.layout.token(p.q_blocks, order, tile, row) : -1, to);
}

template <class T, int D, int BLOCK, int WARPS>
__device__ __forceinline__ void copy_step(const AttentionParams& p, std::int32_t slot, const TileWalk<BLOCK>& walk,
                                          std::uint32_t to) {
    using Rows = Gather<T, D, WARPS, kStepKeys>;
    const int row = Rows::row(), in_tile = walk.half * kStepKeys + row;
    const bool valid = row < kStepKeys && ((walk.valid >> row) & 1);
    const std::uint32_t v_to = to + kStepKeys * D * 2;
    if (walk.pooled()) {
        const std::int64_t first = std::int64_t{slot} * p.panels * BLOCK;
        const std::int32_t place = valid ? (walk.tile - p.kv_blocks.blocks()) * BLOCK + in_tile : -1;
        Rows::copy(reinterpret_cast<const T*>(p.packed.k) + first * D, D, place, to);
        Rows::copy(reinterpret_cast<const T*>(p.packed.v) + first * D, D, place, v_to);
        return;
    }
    const std::int32_t order = p.plan.orders[slot % p.heads];
    const std::int32_t place = valid ? p.layout.token(p.kv_blocks, order, walk.tile, in_tile) : -1;
    Rows::copy(head_rows<T>(p.k, p, slot), p.k.stride_n, place, to);
    Rows::copy(head_rows<T>(p.v, p, slot), p.v.stride_n, place, v_to);
}

template <int D>
struct State {
    float o[2][D / 8][4];
    float m[2][2], l[2][2];  // rows 16 mt + 8 half + lane / 4; l of this thread's columns only
};
using Scores = float[2][kTiles][4];

template <class T, int D>
__device__ __forceinline__ void score(std::uint32_t q, std::uint32_t k, Scores& s) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
        for (int nt = 0; nt < kTiles; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) s[mt][nt][i] = 0.0f;
        }
    }
#pragma unroll
    for (int ks = 0; ks < D / 16; ++ks) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) load_matrices(a[mt], (q ^ (ks << 5)) + mt * 16 * 2 * D);
#pragma unroll
        for (int pair = 0; pair < kTiles / 2; ++pair) {
            std::uint32_t b[4];
            load_matrices(b, (k ^ (ks << 5)) + pair * 16 * 2 * D);
#pragma unroll
            for (int mt = 0; mt < 2; ++mt) {
                mma_half<T>(s[mt][2 * pair], a[mt], b[0], b[1]);
                mma_half<T>(s[mt][2 * pair + 1], a[mt], b[2], b[3]);
            }
        }
    }
}

// s becomes weights, o is scaled to the new maximum. `share` weighs column `last`, where last >= 0.
template <int D>
__device__ __forceinline__ void softmax(State<D>& state, Scores& s, float scale, float bias, std::uint64_t valid,
                                        int last, float share) {
    const auto mine = valid >> (threadIdx.x % 4 * 2);
    const bool some = valid != ~std::uint64_t{0};
    float offset[2][2];
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float top = __int_as_float(0xff800000);
#pragma unroll
            for (int nt = 0; nt < kTiles; ++nt) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    float& x = s[mt][nt][2 * half + i];
                    if (some && !((mine >> (8 * nt + i)) & 1)) x = __int_as_float(0xff800000);
                    top = fmaxf(top, x);
                }
            }
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            const float old = state.m[mt][half], next = fmaxf(old, fmaf(top, scale, bias));
            const float alpha = exp2_fast(old - next);
            state.m[mt][half] = next;
            state.l[mt][half] *= alpha;
            offset[mt][half] = bias - next;
#pragma unroll
            for (int nt = 0; nt < D / 8; ++nt) {
                state.o[mt][nt][2 * half] *= alpha;
                state.o[mt][nt][2 * half + 1] *= alpha;
            }
        }
    }
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
        for (int nt = 0; nt < kTiles; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float w = exp2_fast(fmaf(s[mt][nt][i], scale, offset[mt][i / 2]));
                if (last >= 0 && last == 8 * nt + threadIdx.x % 4 * 2 + i % 2) w *= share;
                state.l[mt][i / 2] += w;
                s[mt][nt][i] = w;
            }
        }
    }
}

template <class T, int D>
__device__ __forceinline__ void accumulate(State<D>& state, const Scores& s, std::uint32_t v) {
#pragma unroll
    for (int ks = 0; ks < kStepKeys / 16; ++ks) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&x)[4] = s[mt][2 * ks + i / 2];
                a[mt][i] = narrow(x[i % 2 * 2], x[i % 2 * 2 + 1], T{});
            }
        }
#pragma unroll
        for (int pair = 0; pair < D / 16; ++pair) {
            std::uint32_t b[4];
            load_matrices_transposed(b, (v ^ (pair << 5)) + ks * 16 * 2 * D);
#pragma unroll
            for (int mt = 0; mt < 2; ++mt) {
                mma_half<T>(state.o[mt][2 * pair], a[mt], b[0], b[1]);
                mma_half<T>(state.o[mt][2 * pair + 1], a[mt], b[2], b[3]);
            }
        }
    }
}

template <int D>
__device__ __forceinline__ void init_state(State<D>& state) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
        state.m[mt][0] = state.m[mt][1] = __int_as_float(0xff800000);
        state.l[mt][0] = state.l[mt][1] = 0.0f;
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) state.o[mt][nt][i] = 0.0f;
        }
    }
}

template <int D>
__device__ __forceinline__ void normalise(State<D>& state) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float l = state.l[mt][half];
            l += __shfl_xor_sync(0xffffffffu, l, 1);
            l += __shfl_xor_sync(0xffffffffu, l, 2);
            const float inverse = 1.0f / l;
#pragma unroll
            for (int nt = 0; nt < D / 8; ++nt) {
                state.o[mt][nt][2 * half] *= inverse;
                state.o[mt][nt][2 * half + 1] *= inverse;
            }
        }
    }
}

template <class T, int D, int BLOCK, int WARPS>
__device__ __forceinline__ void attention_half_body(const AttentionParams& p) {
    using Shared = SharedMemory<D, WARPS>;
    constexpr auto stage_bytes = static_cast<std::uint32_t>(sizeof(typename Shared::Stage));
    PARO_DYNAMIC_SHARED(memory);
    auto& shared = *reinterpret_cast<Shared*>(memory);
    StepInfo& info = shared.info;
    std::uint32_t* mask = shared.mask();
    const std::uint32_t q_shared = shared_address(shared.queries), ring = shared_address(shared.ring);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    std::int32_t slot, tile;
    p.work_item(static_cast<std::int32_t>(blockIdx.x), slot, tile);

    // Queries and the mask row.
    copy_queries<T, D, WARPS>(p, slot, tile, q_shared);
    const bool in_grid = p.q_blocks.is_grid(tile);
    if (in_grid) {
        const std::uint32_t* row = p.mask_row(slot % p.heads, tile);
        for (int i = thread; i < p.plan.mask_words; i += WARPS * 32) mask[i] = row[i];
    }
    __syncthreads();

    // The ring: the first step's keys and values.
    TileWalk<BLOCK> walk(p, in_grid ? mask : nullptr);
    int head = 0, under_way = 0;  // stage to fill next, steps asked for and not yet computed
    const auto load_step = [&] {
        if (walk.next()) {
            copy_step<T, D, BLOCK, WARPS>(p, slot, walk, ring + head * stage_bytes);
            if (thread == 0) {
                info.valid[head] = walk.valid;
                info.tile[head] = walk.tile * 2 + walk.half;
            }
            ++under_way;
        }
        head ^= 1;
        commit_copies();
    };
    load_step();

    State<D> state;
    init_state<D>(state);
    const float scale = p.sm_scale * kLog2e;
    const std::uint32_t q_lane = q_shared + row_offset<D>(warp * kWarpRows + lane % 16, lane / 16);
    const int k_lane = row_offset<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    const int v_lane = static_cast<int>(offsetof(typename Shared::Stage, v)) + row_offset<D>(lane % 16, lane / 16);
    for (int at = 0; under_way > 0; at ^= 1) {
        // This step's copies have landed; the next one's are asked for.
        wait_copies<0>();
        __syncthreads();
        load_step();
        --under_way;

        // A step of pooled keys: their bias, and the last one's share.
        const std::uint32_t stage = ring + at * stage_bytes;
        const std::int32_t step = info.tile[at] - 2 * p.kv_blocks.blocks();
        float share = 1.0f, bias = 0.0f;
        int last = -1;
        if (step >= 0) {
            bias = BLOCK == 64 ? 6.0f : 7.0f;
            last = ragged_column<BLOCK, kStepKeys>(p, step / 2 * BLOCK + step % 2 * kStepKeys, share);
        }

        // Scores, weights, o and l.
        Scores s;
        score<T, D>(q_lane, stage + k_lane, s);
        softmax<D>(state, s, scale, bias, info.valid[at], last, share);
        accumulate<T, D>(state, s, stage + v_lane);
    }

    // The output, through shared memory to the tokens' original places.
    normalise<D>(state);
    const std::int64_t offset = output_offset(p, slot, tile, warp * kWarpRows + lane);
    __syncthreads();
    store_half<T, D, 2>(p, state.o, offset, memory + warp * kWarpRows * (2 * D + 16));
}

// Mean key and value of each grid block, for the tail.
template <class T, int D>
__device__ __forceinline__ void pool_means_body(const AttentionParams& p) {
    constexpr int parts = D / 8, rows = kPackThreads / parts;
    __shared__ float scratch[rows][D], sums[2][D];
    const std::int32_t blocks = p.kv_blocks.grid_blocks, slot = static_cast<std::int32_t>(blockIdx.x) / blocks;
    const std::int32_t grid_block = static_cast<std::int32_t>(blockIdx.x) - slot * blocks;
    const std::int32_t block = p.kv_blocks.prefix_blocks + grid_block, count = p.layout.tokens_in(p.kv_blocks, block);
    const int part = threadIdx.x % parts, order = p.plan.orders[slot % p.heads];
    float k[8] = {}, v[8] = {};
    for (int row = threadIdx.x / parts; row < count; row += rows) {
        const std::int64_t token = p.layout.token(p.kv_blocks, order, block, row);
        float x[8], y[8];
        load8(head_rows<T>(p.k, p, slot) + token * p.k.stride_n + part * 8, x);
        load8(head_rows<T>(p.v, p, slot) + token * p.v.stride_n + part * 8, y);
#pragma unroll
        for (int j = 0; j < 8; ++j) k[j] += x[j], v[j] += y[j];
    }
    sum_rows<D>(k, scratch, sums[0]);
    sum_rows<D>(v, scratch, sums[1]);
    const float inverse = 1.0f / static_cast<float>(count);
    const std::int64_t at = (std::int64_t{slot} * p.panels * p.kv_blocks.block + grid_block) * D;
    for (int d = threadIdx.x; d < D; d += kPackThreads) {
        reinterpret_cast<T*>(p.packed.k)[at + d] = static_cast<T>(sums[0][d] * inverse);
        reinterpret_cast<T*>(p.packed.v)[at + d] = static_cast<T>(sums[1][d] * inverse);
    }
}

#define PARO_HALF_INSTANCE(T, D, Q, K)                                          \
    PARO_KERNEL(paro_attention_##T##_d##D##_q##Q##_k##K, (portable_threads(Q)), \
                (const __grid_constant__ AttentionParams p), attention_half_body<T, D, K, Q / kWarpRows>(p))
#define PARO_HALF_INSTANCES_OF(T, D)                                                                     \
    PARO_KERNEL(paro_pool_means_##T##_d##D, (kPackThreads), (const __grid_constant__ AttentionParams p), \
                pool_means_body<T, D>(p))                                                                \
    PARO_HALF_INSTANCE(T, D, 64, 64)                                                                     \
    PARO_HALF_INSTANCE(T, D, 64, 128) PARO_HALF_INSTANCE(T, D, 128, 64) PARO_HALF_INSTANCE(T, D, 128, 128)
// All of a head_dim.
#define PARO_HALF_INSTANCES(D) PARO_HALF_INSTANCES_OF(f16, D) PARO_HALF_INSTANCES_OF(bf16, D)

}  // namespace
}  // namespace paro::cuda
