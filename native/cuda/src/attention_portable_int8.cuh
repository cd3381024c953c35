// INT8 block-sparse attention with mma.sync, for every GPU from sm_80 on. A CTA computes one query tile; a warp owns 16
// MT of its rows. MT 2: what it reads of k and v from shared memory serves two products. MT 1, `narrow`: twice the
// warps for the same shared memory, where that is what limits them.
#pragma once

#include <cstddef>

#include "cta_shapes.h"
#include "kernel.cuh"
#include "output.cuh"
#include "softmax_int8.cuh"
#include "tile_walk.cuh"

namespace paro::cuda {
namespace {

constexpr int kTiles = kStepKeys / 8;

// 64 keys of a key tile.
template <int D>
struct Stage {
    std::int8_t k[kStepKeys * D];   // [kStepKeys][D]
    std::uint8_t v[D * kStepKeys];  // [D][kStepKeys], keys permuted (packed_layout.h)
    static constexpr int bytes = int8_stage_bytes(D), v_offset = kStepKeys * D;
};
// What goes with a stage. Written by one thread, read by all after the next barrier.
struct StepInfo {
    float2 scale[kInt8MostStages];         // of k, of v
    std::uint64_t valid[kInt8MostStages];  // which keys count
    std::int32_t tile[kInt8MostStages];    // 2 * key tile + half
};
static_assert(sizeof(StepInfo) == kInt8StepBytes);

template <int D, int MT>
struct State {
    float o[MT][D / 8][4];
    float shift[MT][2];
    Softmax<MT> rows;
};
template <int MT>
using Scores = ScoreTiles<MT, kTiles>;
template <int MT>
using Weights = WeightTiles<MT, kTiles>;

// One step's keys and values to shared memory. The v tile of a 128-key block has rows of 128 bytes, of which a step
// takes half and gives it the swizzle of 64-byte rows.
template <int D, int BLOCK, int THREADS>
__device__ __forceinline__ void copy_step(const AttentionParams& p, std::int64_t tile, int half, std::uint32_t to) {
    constexpr int copies = kStepKeys * D / 16 / THREADS;  // of keys, and of values
    const int thread = threadIdx.x;
    const std::int8_t* k = p.packed.k + tile * BLOCK * D + half * kStepKeys * D + thread * 16;
#pragma unroll
    for (int i = 0; i < copies; ++i) copy16_async(to + (thread + i * THREADS) * 16, k + i * THREADS * 16);
    to += Stage<D>::v_offset;
    const std::uint8_t* v = p.packed.v + tile * BLOCK * D;
    constexpr int rows = THREADS / 4;  // v rows that one copy of all threads covers: a multiple of 8
    const int row = thread / 4, piece = (thread % 4) ^ ((row >> 1) & 3);
    const std::uint8_t* from = v + tile_offset(row, (half * 4 + piece) * 16, BLOCK);
#pragma unroll
    for (int i = 0; i < copies; ++i) copy16_async(to + (thread + i * THREADS) * 16, from + i * rows * BLOCK);
}

// s = round_bits + q8 k8 of a warp's rows and 64 keys. Addresses carry the swizzle; steps along head_dim flip their
// bits.
template <int D, int MT>
__device__ __forceinline__ void compute_scores(std::uint32_t q, std::uint32_t k, Scores<MT>& s) {
#pragma unroll
    for (int ks = 0; ks < D / 32; ++ks) {
        std::uint32_t a[MT][4];
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) load_matrices(a[mt], (q ^ (ks << 5)) + mt * 16 * D);
#pragma unroll
        for (int pair = 0; pair < kTiles / 2; ++pair) {
            std::uint32_t b[4];
            load_matrices(b, (k ^ (ks << 5)) + pair * 16 * D);
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) {
                if (ks == 0) {
                    mma_s8_first(s[mt][2 * pair], a[mt], b[0], b[1], kRoundBits);
                    mma_s8_first(s[mt][2 * pair + 1], a[mt], b[2], b[3], kRoundBits);
                } else {
                    mma_s8(s[mt][2 * pair], a[mt], b[0], b[1]);
                    mma_s8(s[mt][2 * pair + 1], a[mt], b[2], b[3]);
                }
            }
        }
    }
}

// o and l take in a step's weights and values.
template <int D, int MT>
__device__ __forceinline__ void accumulate(State<D, MT>& state, const Weights<MT>& weights, std::uint32_t v,
                                           const RowFactors<MT>& f) {
    constexpr std::uint32_t ones = 0x01010101u;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
        std::int32_t sum[4];
        mma_u8_first(sum, weights[mt][0], ones, ones, 0);
        mma_u8(sum, weights[mt][1], ones, ones);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            add_weight_sum(state.rows.l[mt][half], state.shift[mt][half], f, mt, half,
                           static_cast<float>(sum[2 * half]));
        }
    }
    rescale(state.o, f);
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
        std::uint32_t b[4];
        load_matrices(b, v + nt * 8 * kStepKeys);
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
            std::int32_t sum[4];
            mma_u8_first(sum, weights[mt][0], b[0], b[1], 0);
            mma_u8(sum, weights[mt][1], b[2], b[3]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& o = state.o[mt][nt][i];
                o = fmaf(__int_as_float(sum[i]), f.beta[mt][i / 2], o);
            }
        }
    }
}

template <int D, int MT>
__device__ __forceinline__ void init_state(const AttentionParams& p, std::int32_t slot, std::int32_t tile, int warp,
                                           State<D, MT>& state) {
    const int lane = threadIdx.x % 32;
    const float* q_scale =
        p.packed.q_scale + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * p.q_blocks.block + warp * 16 * MT;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            state.rows.m[mt][half] = __int_as_float(0xff800000);
            state.rows.l[mt][half] = state.shift[mt][half] = 0.0f;
            state.rows.q_scale[mt][half] = q_scale[mt * 16 + half * 8 + lane / 4];
        }
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) state.o[mt][nt][i] = 0.0f;
        }
    }
}

// o / l, times the factors per channel of v.
template <int D, int MT>
__device__ __forceinline__ void normalise(const AttentionParams& p, std::int32_t slot, State<D, MT>& state) {
    const float* channel = p.packed.channel + std::int64_t{slot} * D + threadIdx.x % 4 * 2;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
        const float inverse[2] = {1.0f / state.rows.l[mt][0], 1.0f / state.rows.l[mt][1]};
        const float shift[2] = {state.shift[mt][0] * kShiftDown, state.shift[mt][1] * kShiftDown};
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
            const float2 factor = *reinterpret_cast<const float2*>(channel + nt * 8);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& o = state.o[mt][nt][i];
                o = fmaf(o, kSumsUp, -shift[i / 2]) * (inverse[i / 2] * (i % 2 ? factor.y : factor.x));
            }
        }
    }
}

// CTAs that the registers of a multiprocessor are to hold.
PARO_HD constexpr int resident_ctas(int head_dim, int block_q) {
    return (head_dim == 128 ? 8 : 12) / (block_q / kWarpRows);
}

template <int D, int BLOCK, int WARPS, int MT>
__device__ __forceinline__ void attention_int8_body(const AttentionParams& p, int stages) {
    constexpr int threads = WARPS * 32, rows = 16 * MT, q_bytes = WARPS * rows * D;
    // Shared memory, as int8_shared_bytes counts it: the queries, `stages` of the ring (as deep as the launch found
    // room for), what goes with them, the mask row. Where the output leaves, its rows take the place of what comes
    // first.
    PARO_DYNAMIC_SHARED(memory);
    const std::uint32_t q_shared = shared_address(memory), ring = q_shared + q_bytes;
    // Written out: from a function of the struct ptxas orders the loop over key tiles anew, and it takes up to 4 %
    // longer.
    StepInfo& info = *reinterpret_cast<StepInfo*>(memory + q_bytes + stages * Stage<D>::bytes);
    auto* mask = reinterpret_cast<std::uint32_t*>(&info + 1);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    std::int32_t slot, tile;
    p.work_item(static_cast<std::int32_t>(blockIdx.x), slot, tile);

    // Queries and the mask row.
    const std::int8_t* q = p.packed.q + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * q_bytes;
    for (int i = thread * 16; i < q_bytes; i += threads * 16) copy16_async(q_shared + i, q + i);
    const bool in_grid = p.q_blocks.is_grid(tile);
    if (in_grid) {
        const std::uint32_t* row = p.mask_row(slot % p.heads, tile);
        for (int i = thread; i < p.plan.mask_words; i += threads) mask[i] = row[i];
    }
    __syncthreads();

    // The ring: the first steps' keys and values.
    TileWalk<BLOCK> walk(p, in_grid ? mask : nullptr);
    const std::int64_t first_tile = std::int64_t{slot} * p.key_tiles();
    int head = 0, under_way = 0;  // stage to fill next, steps asked for and not yet computed
    const auto load_step = [&] {
        if (walk.next()) {
            const std::uint32_t to = ring + head * Stage<D>::bytes;
            copy_step<D, BLOCK, threads>(p, first_tile + walk.tile, walk.half, to);
            if (thread == 0) {
                copy8_async(shared_address(&info.scale[head]), p.packed.kv_scale + first_tile + walk.tile);
                info.valid[head] = walk.valid;
                info.tile[head] = walk.tile * 2 + walk.half;
            }
            ++under_way;
        }
        head = head + 1 == stages ? 0 : head + 1;
        commit_copies();  // an empty group too, so that groups count steps
    };
    for (int i = 0; i < stages - 1; ++i) load_step();

    State<D, MT> state;
    init_state(p, slot, tile, warp, state);
    // Lane addresses for ldmatrix; tile bases are multiples of 1024, so the swizzle is in their low bits.
    const std::uint32_t q_lane = q_shared + tile_offset(warp * rows + lane % 16, lane / 16 * 16, D);
    const int k_lane = tile_offset(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 16, D);
    const int v_lane = Stage<D>::v_offset + tile_offset(lane % 8, lane / 8 * 16, kStepKeys);
    for (int at = 0; under_way > 0; at = at + 1 == stages ? 0 : at + 1) {
        // This step's copies have landed; the next one's are asked for.
        if (stages > 2) {
            stages > 3 ? wait_copies<2>() : wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
        load_step();
        --under_way;

        // Scores.
        const std::uint32_t stage = ring + at * Stage<D>::bytes;
        Scores<MT> s;
        compute_scores<D, MT>(q_lane, stage + k_lane, s);
        const std::uint64_t valid = info.valid[at];
        const std::int32_t pooled = info.tile[at] - 2 * p.kv_blocks.blocks();  // below 0: not a pooled step
        if (valid != ~std::uint64_t{0}) mask_scores<MT>(s, valid);

        // Running maxima, and what follows from them for this step and for what was gathered before.
        RowFactors<MT> factors;
        Exponents<MT> exponents;
        const float bias = pooled < 0 ? 0.0f : kPooledBias<BLOCK>;
        std::int32_t greatest[MT][2];
        for (int mt = 0; mt < MT; ++mt) row_max(s[mt], greatest[mt]);
        update_maxima(state.rows, greatest, info.scale[at], bias, exponents, factors);

        // Weights.
        Weights<MT> weights;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int w = 0; w < kTiles; ++w) {
                exponentiate_word(s[mt], w, exponents.factor[mt], exponents.offset[mt]);
                weights[mt][w / 4][w % 4] = pack_word(s[mt], w);
            }
        }
        if (pooled >= 0) {
            float share;
            const int ragged = ragged_column<BLOCK, kStepKeys>(p, pooled / 2 * BLOCK + pooled % 2 * kStepKeys, share);
            if (ragged >= 0) scale_column<MT, kTiles>(weights, ragged, share);
        }

        // o and l.
        accumulate(state, weights, stage + v_lane, factors);
    }

    // The output, through shared memory to the tokens' original places.
    wait_copies<0>();
    normalise(p, slot, state);
    const std::int64_t offset = output_offset(p, slot, tile, warp * rows + lane % rows);
    __syncthreads();
    store_output<D, MT>(p, state.o, offset, memory + warp * rows * (2 * D + 16));
}

#define PARO_INT8_INSTANCE(D, Q, K)                                                                 \
    PARO_KERNEL(paro_attention_int8_d##D##_q##Q##_k##K, (portable_threads(Q), resident_ctas(D, Q)), \
                (const __grid_constant__ AttentionParams p, int stages),                            \
                attention_int8_body<D, K, Q / kWarpRows, kWarpRows / 16>(p, stages))
// Two of these CTAs are as many warps as four of the others, in half of their shared memory.
#define PARO_INT8_NARROW_INSTANCE(D, K)                                          \
    PARO_KERNEL(paro_attention_int8_narrow_d##D##_q64_k##K, (kNarrowThreads, 2), \
                (const __grid_constant__ AttentionParams p, int stages), attention_int8_body<D, K, 4, 1>(p, stages))
// All of a head_dim.
#define PARO_INT8_INSTANCES(D)    \
    PARO_INT8_INSTANCE(D, 64, 64) \
    PARO_INT8_INSTANCE(D, 128, 64) PARO_INT8_INSTANCE(D, 64, 128) PARO_INT8_INSTANCE(D, 128, 128)
#define PARO_INT8_NARROW_INSTANCES(D) PARO_INT8_NARROW_INSTANCE(D, 64) PARO_INT8_NARROW_INSTANCE(D, 128)

}  // namespace
}  // namespace paro::cuda
