// INT8 block-sparse attention with mma.sync, for every GPU from sm_80 on. A CTA computes one query tile; a warp owns 32
// of its rows, so that what it reads of k and v from shared memory serves two products of 16 rows.
#include "launch_kernel.h"
#include "output.cuh"
#include "paro/cuda/launch.h"
#include "tile_walk.cuh"

namespace paro::cuda {
namespace {

constexpr int kRows = 32;  // query rows of a warp
constexpr int kStep = 64;  // keys of a step
constexpr int kTiles = kStep / 8;
constexpr float kLog2Of255 = 7.994353437f;
constexpr int kMaxStages = 4;

// What a stage of the ring holds: 64 keys of a key tile.
template <int D>
struct Stage {
    static constexpr int k_bytes = kStep * D, v_bytes = D * kStep, bytes = k_bytes + v_bytes;
};
// What goes with it. Written by one thread, read by all after the next barrier.
struct StageInfo {
    float2 scale[kMaxStages];
    std::uint64_t valid[kMaxStages];
    std::int32_t tile[kMaxStages];
};

// A warp's running softmax; rows 16 mt + 8 half + lane / 4 at [mt][half].
template <int D>
struct State {
    float o[2][D / 8][4];
    float m[2][2], l[2][2], q_scale[2][2];
};

// Rows and columns as the products hold them.
using Scores = std::int32_t[2][kTiles][4];
using Weights = std::uint32_t[2][2][4];  // [mt][32 keys][a operand]

// One step's keys and values to shared memory. The v tile of a 128-key block has rows of 128 bytes, of which a step
// takes half and gives it the swizzle of 64-byte rows.
template <int D, int BLOCK, int THREADS>
__device__ __forceinline__ void copy_step(const AttentionParams& p, std::int64_t tile, int half, std::uint32_t to) {
    constexpr int k_copies = Stage<D>::k_bytes / 16 / THREADS, v_copies = Stage<D>::v_bytes / 16 / THREADS;
    const int thread = threadIdx.x;
    const std::int8_t* k = p.packed.k + tile * BLOCK * D + half * Stage<D>::k_bytes + thread * 16;
#pragma unroll
    for (int i = 0; i < k_copies; ++i) copy16_async(to + (thread + i * THREADS) * 16, k + i * THREADS * 16);
    to += Stage<D>::k_bytes;
    const std::int8_t* v = p.packed.v + tile * BLOCK * D;
    constexpr int rows = THREADS / 4;  // v rows that one copy of all threads covers: a multiple of 8
    const int row = thread / 4, piece = (thread % 4) ^ ((row >> 1) & 3);
    const std::int8_t* from = v + tile_offset(row, (half * 4 + piece) * 16, BLOCK);
#pragma unroll
    for (int i = 0; i < v_copies; ++i) copy16_async(to + (thread + i * THREADS) * 16, from + i * rows * BLOCK);
}

// s = round_bits + q8 k8 of 32 rows and 64 keys. Addresses carry the swizzle; steps along head_dim flip their bits.
template <int D>
__device__ __forceinline__ void score(std::uint32_t q, std::uint32_t k, Scores& s) {
#pragma unroll
    for (int ks = 0; ks < D / 32; ++ks) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) load_matrices(a[mt], (q ^ (ks << 5)) + mt * 16 * D);
#pragma unroll
        for (int pair = 0; pair < kTiles / 2; ++pair) {
            std::uint32_t b[4];
            load_matrices(b, (k ^ (ks << 5)) + pair * 16 * D);
#pragma unroll
            for (int mt = 0; mt < 2; ++mt) {
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

// Factors of a step for each of a thread's rows.
struct RowFactors {
    float alpha[2][2];  // of what was gathered so far
    float beta[2][2];   // of this step's integer sums
    float unit[2][2];   // of this step's integer weights
};

// Which bytes of a packed word of weights count: keys 16 group + 2t, 2t+1, 8+2t, 8+2t+1.
__device__ __forceinline__ std::uint32_t byte_mask(std::uint64_t valid, int group) {
    const int t = threadIdx.x % 4;
    const auto bits = static_cast<std::uint32_t>(valid >> (16 * group + 2 * t));
    return ((bits & 1) | (bits & 2) << 7 | (bits & 0x100) << 8 | (bits & 0x200) << 15) * 0xffu;
}

// Scores of keys that do not count go below every score.
__device__ __forceinline__ void mask_scores(Scores& s, std::uint64_t valid) {
    const auto mine = valid >> (threadIdx.x % 4 * 2);
#pragma unroll
    for (int nt = 0; nt < kTiles; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (!((mine >> (8 * nt + i % 2)) & 1)) s[0][nt][i] = s[1][nt][i] = 0;
        }
    }
}

// Weights of keys that do not count become 0; that of column `ragged`, where ragged >= 0, is multiplied by `share`.
__device__ __forceinline__ void mask_weights(Weights& weights, std::uint64_t valid, int ragged, float share) {
#pragma unroll
    for (int group = 0; group < kStep / 16; ++group) {
        const std::uint32_t mask = byte_mask(valid, group);
        // The byte of a word that holds the column, if this thread's does.
        const int key = ragged - 16 * group, byte = key / 8 * 2 + key % 2;
        const bool mine = ragged >= 0 && key >= 0 && key < 16 && key % 8 / 2 == static_cast<int>(threadIdx.x % 4);
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                std::uint32_t& word = weights[mt][group / 2][group % 2 * 2 + half];
                word &= mask;
                if (!mine) continue;
                const auto weight = static_cast<float>((word >> (8 * byte)) & 0xff);
                const std::uint32_t scaled = __float_as_uint(fmaf(weight, share, kRound)) & 0xff;
                word = (word & ~(0xffu << (8 * byte))) | scaled << (8 * byte);
            }
        }
    }
}

// s becomes weights, m moves on. `bias` is added to every score.
template <int D>
__device__ __forceinline__ void softmax(State<D>& state, const Scores& s, float2 scale, float bias, Weights& weights,
                                        RowFactors& f) {
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
        float factor[2], offset[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float top = __int_as_float(s[mt][0][2 * half]);
#pragma unroll
            for (int nt = 0; nt < kTiles; ++nt) {
                top = fmaxf(top, fmaxf(__int_as_float(s[mt][nt][2 * half]), __int_as_float(s[mt][nt][2 * half + 1])));
            }
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            factor[half] = state.q_scale[mt][half] * scale.x;
            // Rounded down: with large factors the greatest weight could otherwise come out as 256 and wrap. What it
            // lacks, all weights of the row lack alike.
            offset[half] = __fmaf_rd(-top, factor[half], kLog2Of255);
            const float block_max = fmaf(top - kRound, factor[half], bias), old = state.m[mt][half];
            const float next = fmaxf(block_max, old);  // NaN keeps old; unit carries it on
            state.m[mt][half] = next;
            f.alpha[mt][half] = exp2_fast(old - next);
            f.unit[mt][half] = exp2_fast(block_max - next) * (1.0f / 255.0f);
            f.beta[mt][half] = f.unit[mt][half] * scale.y;
        }
#pragma unroll
        for (int group = 0; group < kStep / 16; ++group) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float w[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float x = __int_as_float(s[mt][2 * group + i / 2][2 * half + i % 2]);
                    w[i] = exp2_fast(fmaf(x, factor[half], offset[half]));
                }
                weights[mt][group / 2][group % 2 * 2 + half] = round_weights(w[0], w[1], w[2], w[3]);
            }
        }
    }
}

// o and l take in a step's weights and values. The integer sums start from kRoundBits, so their bits are floats that
// are off by kRound; |sum| <= 64 * 255 * 127 < 2^22.
template <int D>
__device__ __forceinline__ void accumulate(State<D>& state, const Weights& weights, std::uint32_t v,
                                           const RowFactors& f) {
    constexpr std::uint32_t ones = 0x01010101u;
    float off[2][2];
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
        std::int32_t sum[4];
        mma_u8_first(sum, weights[mt][0], ones, ones, 0);
        mma_u8(sum, weights[mt][1], ones, ones);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            off[mt][half] = -kRound * f.beta[mt][half];
            state.l[mt][half] =
                fmaf(state.l[mt][half], f.alpha[mt][half], static_cast<float>(sum[2 * half]) * f.unit[mt][half]);
        }
    }
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
        std::uint32_t b[4];
        load_matrices(b, v + nt * 8 * kStep);
#pragma unroll
        for (int mt = 0; mt < 2; ++mt) {
            std::int32_t sum[4];
            mma_u8_first(sum, weights[mt][0], b[0], b[1], kRoundBits);
            mma_u8(sum, weights[mt][1], b[2], b[3]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float& o = state.o[mt][nt][i];
                o = fmaf(__int_as_float(sum[i]), f.beta[mt][i / 2], fmaf(o, f.alpha[mt][i / 2], off[mt][i / 2]));
            }
        }
    }
}

template <int D>
__device__ __forceinline__ void start(const AttentionParams& p, std::int32_t slot, std::int32_t tile, int warp,
                                      State<D>& state) {
    const int lane = threadIdx.x % 32;
    const float* q_scale =
        p.packed.q_scale + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * p.q_blocks.block + warp * kRows;
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            state.m[mt][half] = __int_as_float(0xff800000);
            state.l[mt][half] = 0.0f;
            state.q_scale[mt][half] = q_scale[mt * 16 + half * 8 + lane / 4];
        }
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) state.o[mt][nt][i] = 0.0f;
        }
    }
}

// o / l, times the factors per channel of v.
template <int D>
__device__ __forceinline__ void finish(const AttentionParams& p, std::int32_t slot, State<D>& state) {
    const float* channel = p.packed.channel + std::int64_t{slot} * D + threadIdx.x % 4 * 2;
#pragma unroll
    for (int mt = 0; mt < 2; ++mt) {
        const float inverse[2] = {1.0f / state.l[mt][0], 1.0f / state.l[mt][1]};
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
            const float2 factor = *reinterpret_cast<const float2*>(channel + nt * 8);
#pragma unroll
            for (int i = 0; i < 4; ++i) state.o[mt][nt][i] *= inverse[i / 2] * (i % 2 ? factor.y : factor.x);
        }
    }
}

template <int D, int BLOCK, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, D == 128 ? 8 / WARPS : 12 / WARPS)
    attention_int8_kernel(const __grid_constant__ AttentionParams p, int stages) {
    constexpr int threads = WARPS * 32, q_bytes = WARPS * kRows * D;
    PARO_DYNAMIC_SHARED(shared);
    const std::uint32_t q_shared = shared_address(shared), ring = q_shared + q_bytes;
    StageInfo& info = *reinterpret_cast<StageInfo*>(shared + q_bytes + stages * Stage<D>::bytes);
    auto* mask = reinterpret_cast<std::uint32_t*>(&info + 1);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    std::int32_t slot, tile;
    p.work_item(static_cast<std::int32_t>(blockIdx.x), slot, tile);

    const std::int8_t* q = p.packed.q + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * q_bytes;
    for (int i = thread * 16; i < q_bytes; i += threads * 16) copy16_async(q_shared + i, q + i);
    const bool in_grid = p.q_blocks.is_grid(tile);
    if (in_grid) {
        const std::uint32_t* row = p.mask_row(slot % p.heads, tile);
        for (int i = thread; i < p.plan.mask_words; i += threads) mask[i] = row[i];
    }
    __syncthreads();
    TileWalk<BLOCK> walk(p, in_grid ? mask : nullptr);
    const std::int64_t first_tile = std::int64_t{slot} * p.key_tiles();

    int head = 0, under_way = 0;  // stage to fill next, steps asked for and not yet computed
    const auto fetch = [&] {
        if (walk.next()) {
            copy_step<D, BLOCK, threads>(p, first_tile + walk.tile, walk.half, ring + head * Stage<D>::bytes);
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
    for (int i = 0; i < stages - 1; ++i) fetch();

    State<D> state;
    start<D>(p, slot, tile, warp, state);
    // Lane addresses for ldmatrix; tile bases are multiples of 1024, so the swizzle is in their low bits.
    const std::uint32_t q_lane = q_shared + tile_offset(warp * kRows + lane % 16, lane / 16 * 16, D);
    const int k_lane = tile_offset(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 16, D);
    const int v_lane = Stage<D>::k_bytes + tile_offset(lane % 8, lane / 8 * 16, kStep);
    for (int at = 0; under_way > 0; at = at + 1 == stages ? 0 : at + 1) {
        if (stages > 2) {
            stages > 3 ? wait_copies<2>() : wait_copies<1>();
        } else {
            wait_copies<0>();
        }
        __syncthreads();
        fetch();
        --under_way;
        const std::uint32_t stage = ring + at * Stage<D>::bytes;
        Scores s;
        score<D>(q_lane, stage + k_lane, s);
        Weights weights;
        RowFactors factors;
        const std::uint64_t valid = info.valid[at];
        const std::int32_t pooled = info.tile[at] - 2 * p.kv_blocks.blocks();
        const bool plain = valid == ~std::uint64_t{0};
        if (!plain) mask_scores(s, valid);
        softmax<D>(state, s, info.scale[at], pooled < 0 ? 0.0f : BLOCK == 64 ? 6.0f : 7.0f, weights, factors);
        if (!plain || pooled >= 0) {
            float share = 1.0f;
            const int ragged =
                pooled < 0 ? -1 : ragged_column<BLOCK, kStep>(p, pooled / 2 * BLOCK + pooled % 2 * kStep, share);
            mask_weights(weights, valid, ragged, share);
        }
        accumulate<D>(state, weights, stage + v_lane, factors);
    }
    wait_copies<0>();
    finish<D>(p, slot, state);
    const std::int64_t offset = output_offset(p, slot, tile, warp * kRows + lane);
    __syncthreads();
    store_output<D, 2>(p, state.o, offset, shared + warp * kRows * (2 * D + 16));
}

template <int D, int BLOCK, int WARPS>
void launch(const AttentionParams& p, cudaStream_t stream) {
    const auto kernel = attention_int8_kernel<D, BLOCK, WARPS>;
    const int limit = shared_memory_limit();
    const int fixed = WARPS * kRows * D + static_cast<int>(sizeof(StageInfo)) + p.plan.mask_words * 4;
    // Two CTAs of 128 threads on a multiprocessor at least; deeper rings where there is room.
    constexpr int wanted = 8 / WARPS;
    int stages = 2;
    while (stages < 3 && (fixed + (stages + 1) * Stage<D>::bytes + 2048) * wanted <= limit) ++stages;
    const int bytes = fixed + stages * Stage<D>::bytes;
    launch_kernel("attention_int8_kernel", kernel, p.work_items(), WARPS * 32, bytes, stream, p, stages);
}

template <int D>
void launch(const AttentionParams& p, cudaStream_t stream) {
    if (p.kv_blocks.block == 64) {
        p.q_blocks.block == 64 ? launch<D, 64, 2>(p, stream) : launch<D, 64, 4>(p, stream);
    } else {
        p.q_blocks.block == 64 ? launch<D, 128, 2>(p, stream) : launch<D, 128, 4>(p, stream);
    }
}

}  // namespace

void launch_attention_portable_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? launch<128>(p, stream) : launch<64>(p, stream);
}

}  // namespace paro::cuda
