// Exact importance (importance.h): 128 query rows of a head's order against all keys, 64 at a time. Persistent CTAs, so
// that what they keep between products and normalising stays small enough for L2.
#include "launch_kernel.h"
#include "paro/cuda/importance.h"
#include "score_tile.cuh"

namespace paro::cuda {
namespace {

constexpr int kStages = 3, kResident = 3;
constexpr int kRows = 128, kBlock = 64, kHalves = kRows / kBlock;
static_assert(kBlock == kScoreKeys);

template <int D>
constexpr int kRingBytes = kStages* kScoreKeys* D * 2;
// The queries come through the ring, all of it, before the first keys.
template <int D>
constexpr int kQueryBytes = kRows* D * 2;
static_assert(kQueryBytes<128> <= kRingBytes<128>);

// Of a thread's four rows, 16 mt + 8 half + lane / 4 of the warp's 32: where exponentials count from, and their sum.
struct RowSums {
    float base[2][2], l[2][2];
};

// Sums over 64 keys, whole in every lane of a quad.
__device__ __forceinline__ void sum_row(const TileScores<2>& s, int mt, int half, float scale, float base, float& sum) {
    sum = 0.0f;
#pragma unroll
    for (int nt = 0; nt < kScoreTiles; ++nt) {
        sum +=
            exp2_fast(fmaf(s[mt][nt][2 * half], scale, -base)) + exp2_fast(fmaf(s[mt][nt][2 * half + 1], scale, -base));
    }
    sum = quad_sum(sum);
}

// Adds 64 keys; returns through `logs` log2 of each row's sum over them. Exponentials count from what the first keys
// gave until a sum nears overflow: a running maximum would be a quarter of the work here.
__device__ __forceinline__ void take_block(RowSums& rows, const TileScores<2>& s, float scale, float (&logs)[2][2]) {
    constexpr float most = 1.8446744e19f;  // 2^64
    float sum[2][2];
    bool fits = true;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum_row(s, i / 2, i % 2, scale, rows.base[i / 2][i % 2], sum[i / 2][i % 2]);
        fits = fits && sum[i / 2][i % 2] < most;
    }
    if (!__all_sync(0xffffffffu, fits)) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int mt = i / 2, half = i % 2;
            float top = minus_infinity();
#pragma unroll
            for (int nt = 0; nt < kScoreTiles; ++nt) {
                top = fmaxf(top, fmaxf(s[mt][nt][2 * half], s[mt][nt][2 * half + 1]));
            }
            const float next = exponent_base(fmaxf(rows.base[mt][half], quad_max(top) * scale));
            rows.l[mt][half] *= exp2_fast(rows.base[mt][half] - next);
            rows.base[mt][half] = next;
            sum_row(s, mt, half, scale, next, sum[mt][half]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        rows.l[i / 2][i % 2] += sum[i / 2][i % 2];
        logs[i / 2][i % 2] = rows.base[i / 2][i % 2] + log2_fast(sum[i / 2][i % 2]);
    }
}

// Sums of probabilities over 64 rows x 64 keys, a warp for each key block. log_sums: of the 128 rows, +infinity for
// those that do not count.
__device__ void sum_blocks(const ImportanceParams& p, const float* block_logs, const float4* log_sums, float* out,
                           int halves) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::int32_t cols = p.base.kv_blocks.grid_blocks;
    const float4 whole = log_sums[lane];
    for (std::int32_t col = warp; col < cols; col += kScoreThreads / 32) {
        const float4 part = reinterpret_cast<const float4*>(block_logs + std::int64_t{col} * kRows)[lane];
        float sum = (is_finite(whole.x) ? exp2_fast(part.x - whole.x) : 0.0f) +
                    (is_finite(whole.y) ? exp2_fast(part.y - whole.y) : 0.0f);
        sum += (is_finite(whole.z) ? exp2_fast(part.z - whole.z) : 0.0f) +
               (is_finite(whole.w) ? exp2_fast(part.w - whole.w) : 0.0f);
        // Lanes 0 .. 15 hold the first block of rows, 16 .. 31 the second.
#pragma unroll
        for (int bit = 8; bit > 0; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
        if (lane % 16 == 0 && lane / 16 < halves) out[std::int64_t{lane / 16} * cols + col] = sum;
    }
}

template <class T, int D>
__global__ void __launch_bounds__(kScoreThreads, kResident)
    importance_kernel(const __grid_constant__ ImportanceParams p) {
    PARO_DYNAMIC_SHARED(shared);
    __shared__ float4 log_sums[kRows / 4];
    constexpr int stage_bytes = kScoreKeys * D * 2;
    const AttentionParams& base = p.base;
    const BlockParams &q_blocks = base.q_blocks, &kv_blocks = base.kv_blocks;
    const std::int32_t worker = static_cast<std::int32_t>(blockIdx.x), cols = kv_blocks.grid_blocks;
    const std::int32_t per_slot = (q_blocks.grid_blocks + kHalves - 1) / kHalves, items = base.slots() * per_slot;
    float* block_logs = p.block_logs + std::int64_t{worker} * cols * kRows;
    const std::uint32_t ring = shared_address(shared);
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 32 + lane / 4;
    const float scale = base.sm_scale * kLog2E;

    // Neighbours share a slot, so that its keys stay in L2.
    for (std::int32_t number = worker; number < items; number += p.workers) {
        const std::int32_t slot = number / per_slot, first = (number - slot * per_slot) * kHalves;
        const std::int32_t order = p.orders[slot % base.heads];
        const std::int32_t tokens = min(kRows, base.layout.grid - first * kBlock);
        {
            using Rows = RowCopy<T, D, kRows>;
            const int in_block = Rows::row() % kBlock, block = q_blocks.prefix_blocks + first + Rows::row() / kBlock;
            const bool token = Rows::row() < tokens;
            Rows::copy(head_rows<T>(base.q, base, slot), base.q.stride_n,
                       token ? base.layout.token(q_blocks, order, block, in_block) : -1, ring);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
        }
        HeldQueries<D, 2> q;
        q.load(ring);
        __syncthreads();
        RowSums rows;
#pragma unroll
        for (int i = 0; i < 4; ++i) rows.base[i / 2][i % 2] = minus_infinity(), rows.l[i / 2][i % 2] = 0.0f;
        stream_tiles<kStages>(
            kv_blocks.blocks(), [] {},
            [&](int t, int stage) {
                using Rows = RowCopy<T, D, kScoreKeys>;
                const bool token = Rows::row() < base.layout.tokens_in(kv_blocks, t);
                Rows::copy(head_rows<T>(base.k, base, slot), base.k.stride_n,
                           token ? base.layout.token(kv_blocks, order, t, Rows::row()) : -1,
                           ring + stage * stage_bytes);
            },
            [&](int t, int stage) {
                TileScores<2> s;
                score_tile<T, D, 2>(q, ring + stage * stage_bytes, s);
                mask_columns<2>(s, base.layout.tokens_in(kv_blocks, t));
                float logs[2][2];
                take_block(rows, s, scale, logs);
                if (!kv_blocks.is_grid(t) || lane % 4 != 0) return;
                float* to = block_logs + std::int64_t{t - kv_blocks.prefix_blocks} * kRows + row;
#pragma unroll
                for (int i = 0; i < 4; ++i) to[i / 2 * 16 + i % 2 * 8] = logs[i / 2][i % 2];
            });
        if (lane % 4 == 0) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int at = row + i / 2 * 16 + i % 2 * 8;
                const float sum = rows.base[i / 2][i % 2] + log2f(rows.l[i / 2][i % 2]);
                reinterpret_cast<float*>(log_sums)[at] =
                    at < tokens && is_finite(sum) ? sum : __int_as_float(0x7f800000);
            }
        }
        __syncthreads();
        float* out = p.out + (std::int64_t{slot} * q_blocks.grid_blocks + first) * cols;
        sum_blocks(p, block_logs, log_sums, out, min(kHalves, q_blocks.grid_blocks - first));
        __syncthreads();
    }
}

template <class T, int D>
void launch(const ImportanceParams& p, cudaStream_t stream) {
    launch_kernel("importance_kernel", importance_kernel<T, D>, p.workers, kScoreThreads, kRingBytes<D>, stream, p);
}

template <class T>
void launch(const ImportanceParams& p, cudaStream_t stream) {
    p.base.head_dim == 128 ? launch<T, 128>(p, stream) : launch<T, 64>(p, stream);
}

}  // namespace

void set_importance(ImportanceParams& p) {
    require(p.base.dtype != DType::f32, "dtype", "must be f16 or bf16 for exact importance", "f32");
    require(p.base.q_blocks.block == kBlock && p.base.kv_blocks.block == kBlock, "block_q", "must be 64 here",
            p.base.q_blocks.block);
    const std::int32_t items = p.base.slots() * ((p.base.q_blocks.grid_blocks + kHalves - 1) / kHalves);
    p.workers = std::min(items, multiprocessors() * kResident);
}

std::size_t importance_bytes(const ImportanceParams& p) {
    return sizeof(float) * kRows * static_cast<std::size_t>(p.workers) * p.base.kv_blocks.grid_blocks;
}
void place_importance(ImportanceParams& p, void* base) { p.block_logs = static_cast<float*>(base); }

void launch_importance(const ImportanceParams& p, cudaStream_t stream) {
    p.base.dtype == DType::bf16 ? launch<__nv_bfloat16>(p, stream) : launch<__half>(p, stream);
}

}  // namespace paro::cuda
