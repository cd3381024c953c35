// What both kernels of exact importance share.
#pragma once

#include "cta_shapes.h"
#include "paro/cuda/importance.h"
#include "score_tile.cuh"

namespace paro::cuda {

// 128 query rows of a head's order: what a CTA does at a time. Neighbours share a slot, so that its keys stay in L2.
struct ImportanceItem {
    std::int32_t slot, first, order, tokens;  // first: query block of 64; tokens of the 128 rows

    __device__ static std::int32_t per_slot(const ImportanceParams& p) {
        return (p.base.q_blocks.grid_blocks + kImportanceHalves - 1) / kImportanceHalves;
    }
    __device__ ImportanceItem(const ImportanceParams& p, std::int32_t number) {
        slot = number / per_slot(p);
        first = (number - slot * per_slot(p)) * kImportanceHalves;
        order = p.orders[slot % p.base.heads];
        tokens = min(kImportanceRows, p.base.layout.grid - first * kImportanceBlock);
    }
    // The token of one of the 128 rows, or -1.
    __device__ std::int32_t query(const ImportanceParams& p, int row) const {
        const int block = p.base.q_blocks.prefix_blocks + first + row / kImportanceBlock;
        return row < tokens ? p.base.layout.token(p.base.q_blocks, order, block, row % kImportanceBlock) : -1;
    }
    // The token of one of the 64 keys of a block, or -1.
    __device__ std::int32_t key(const ImportanceParams& p, std::int32_t block, int row) const {
        const bool token = row < p.base.layout.tokens_in(p.base.kv_blocks, block);
        return token ? p.base.layout.token(p.base.kv_blocks, order, block, row) : -1;
    }
};

// Of a thread's rows, 16 mt + 8 half + lane / 4 of the warp's 16 MT: where exponentials count from, and their sum.
template <int MT>
struct RowSums {
    float base[MT][2], l[MT][2];

    __device__ void start() {
#pragma unroll
        for (int i = 0; i < 2 * MT; ++i) base[i / 2][i % 2] = minus_infinity(), l[i / 2][i % 2] = 0.0f;
    }
};

// Sums over 64 keys, whole in every lane of a quad.
template <int MT>
__device__ __forceinline__ void sum_row(const TileScores<MT>& s, int mt, int half, float scale, float base,
                                        float& sum) {
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
template <int MT>
__device__ __forceinline__ void take_block(RowSums<MT>& rows, const TileScores<MT>& s, float scale,
                                           float (&logs)[MT][2]) {
    constexpr float most = 1.8446744e19f;  // 2^64
    float sum[MT][2];
    bool fits = true;
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) {
        sum_row<MT>(s, i / 2, i % 2, scale, rows.base[i / 2][i % 2], sum[i / 2][i % 2]);
        fits = fits && sum[i / 2][i % 2] < most;
    }
    if (!__all_sync(0xffffffffu, fits)) {
#pragma unroll
        for (int i = 0; i < 2 * MT; ++i) {
            const int mt = i / 2, half = i % 2;
            float top = minus_infinity();
#pragma unroll
            for (int nt = 0; nt < kScoreTiles; ++nt) {
                top = fmaxf(top, fmaxf(s[mt][nt][2 * half], s[mt][nt][2 * half + 1]));
            }
            const float next = exponent_base(fmaxf(rows.base[mt][half], quad_max(top) * scale));
            rows.l[mt][half] *= exp2_fast(rows.base[mt][half] - next);
            rows.base[mt][half] = next;
            sum_row<MT>(s, mt, half, scale, next, sum[mt][half]);
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) {
        rows.l[i / 2][i % 2] += sum[i / 2][i % 2];
        logs[i / 2][i % 2] = rows.base[i / 2][i % 2] + log2_fast(sum[i / 2][i % 2]);
    }
}

// Hands the logarithms of a tile of keys on to sum_blocks; `first` is the warp's first row.
template <int MT>
__device__ __forceinline__ void store_logs(const ImportanceParams& p, float* block_logs, std::int32_t tile, int first,
                                           const float (&logs)[MT][2]) {
    const int lane = threadIdx.x % 32;
    if (!p.base.kv_blocks.is_grid(tile) || lane % 4 != 0) return;
    float* to = block_logs + std::int64_t{tile - p.base.kv_blocks.prefix_blocks} * kImportanceRows + first + lane / 4;
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) to[i / 2 * 16 + i % 2 * 8] = logs[i / 2][i % 2];
}

// log2 of each row's sum over all keys; +infinity past `tokens` and where it is not finite.
template <int MT>
__device__ __forceinline__ void store_log_sums(const RowSums<MT>& rows, float* log_sums, int first, int tokens) {
    const int lane = threadIdx.x % 32;
    if (lane % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < 2 * MT; ++i) {
        const int at = first + lane / 4 + i / 2 * 16 + i % 2 * 8;
        const float sum = rows.base[i / 2][i % 2] + log2f(rows.l[i / 2][i % 2]);
        log_sums[at] = at < tokens && is_finite(sum) ? sum : __int_as_float(0x7f800000);
    }
}

// Sums of probabilities over 64 rows x 64 keys, a warp for each key block. log_sums: of the 128 rows, +infinity for
// those that do not count.
template <int WARPS>
__device__ void sum_blocks(const ImportanceParams& p, const float* block_logs, const float4* log_sums, float* out,
                           int halves) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::int32_t cols = p.base.kv_blocks.grid_blocks;
    const float4 whole = log_sums[lane];
    for (std::int32_t col = warp; col < cols; col += WARPS) {
        const float4 part = reinterpret_cast<const float4*>(block_logs + std::int64_t{col} * kImportanceRows)[lane];
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

}  // namespace paro::cuda
