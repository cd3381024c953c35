// First launch of packing: the sums behind key shift and value factors, and the queries, which need neither.
#pragma once

#include "rows.cuh"

namespace paro::cuda {

// Tokens sampled for the key shift: any vector is exact there, a mean is a good one.
constexpr int kShiftSamples = 512;

// The i-th of `samples` tokens spread over the sequence, displaced inside its stretch by the golden ratio: a plain
// stride could meet one grid column.
__device__ __forceinline__ std::int32_t sample_token(std::int32_t i, std::int32_t samples, std::int32_t length) {
    const std::int64_t first = std::int64_t{i} * length / samples;
    const std::int64_t width = (i + std::int64_t{1}) * length / samples - first;
    return static_cast<std::int32_t>(first + ((i * std::int64_t{40503}) & 0xffff) * width / 65536);
}

template <class T>
__device__ __forceinline__ const T* head_rows(const TensorParams& x, const AttentionParams& p, std::int32_t slot) {
    const std::int32_t batch = slot / p.heads, head = slot - batch * p.heads;
    return static_cast<const T*>(x.data) + batch * x.stride_b + head * x.stride_h;
}

// Sums over the threads that share a channel, in a fixed order. x[8] of thread (row, part) becomes sums[8 part ..].
template <int D>
__device__ __forceinline__ void sum_rows(const float (&x)[8], float (*scratch)[D], float* out) {
    constexpr int parts = D / 8, rows = kPackThreads / parts;
    const int part = threadIdx.x % parts, row = threadIdx.x / parts;
#pragma unroll
    for (int j = 0; j < 8; ++j) scratch[row][part * 8 + j] = x[j];
    __syncthreads();
    if (threadIdx.x < D) {
        float sum = 0.0f;
#pragma unroll
        for (int r = 0; r < rows; ++r) sum += scratch[r][threadIdx.x];
        out[threadIdx.x] = sum;
    }
    __syncthreads();
}

// Shift, factor per channel and its inverse of a slot, from the partial sums of all chunks. The factor is the cubic
// mean of |v|: against the maximum, which lets one token flatten its channel everywhere, and the mean, which hides a
// token that towers in all channels, it had the least worst error.
template <int D>
__device__ void finish_statistics(const AttentionParams& p, std::int32_t slot) {
    __shared__ float top[D];
    const int d = threadIdx.x;
    float key_sum = 0.0f, cubes = 0.0f;
    const float* partial = p.packed.partial + std::int64_t{slot} * p.chunks * 2 * D;
    if (d < D) {
#pragma unroll 8
        for (int c = 0; c < p.chunks; ++c) {
            key_sum += __ldcg(partial + c * 2 * D + d);
            cubes += __ldcg(partial + c * 2 * D + D + d);
        }
        float mean = cubes / static_cast<float>(p.layout.length());
        // An overflow or NaN here would spoil every block; the scale of the block that holds it carries it on.
        if (!(mean < 3.402823466e38f)) mean = 3.402823466e38f;
        cubes = cbrtf(mean);
        top[d] = cubes;
    }
    __syncthreads();
    for (int half = D / 2; half > 0; half /= 2) {
        if (d < half) top[d] = fmaxf(top[d], top[d + half]);
        __syncthreads();
    }
    if (d < D) {
        // A channel without values still needs a factor to divide by.
        const float floor = top[0] > 1e-30f ? top[0] * 1e-4f : 1.0f;
        const float channel = fmaxf(cubes, floor);
        const std::int64_t at = std::int64_t{slot} * D + d;
        p.packed.shift[at] = key_sum / static_cast<float>(min(kShiftSamples, p.layout.length()));
        p.packed.channel[at] = channel;
        p.packed.channel_inverse[at] = 1.0f / channel;
    }
}

// One chunk of one slot. The last chunk of a slot to arrive finishes it; sums do not depend on who that is.
template <class T, int D>
__device__ void sum_chunk(const AttentionParams& p, std::int32_t slot, std::int32_t chunk) {
    constexpr int parts = D / 8, rows = kPackThreads / parts, unroll = 4;
    __shared__ float scratch[rows][D];
    __shared__ bool last;
    const int part = threadIdx.x % parts, row = threadIdx.x / parts;
    const std::int32_t length = p.layout.length(), samples = min(kShiftSamples, length);
    float* out = p.packed.partial + (std::int64_t{slot} * p.chunks + chunk) * 2 * D;

    const T* k = head_rows<T>(p.k, p, slot) + part * 8;
    float sum[8] = {};
    const std::int32_t sample_end = static_cast<std::int32_t>(std::int64_t{chunk + 1} * samples / p.chunks);
    for (auto i = static_cast<std::int32_t>(std::int64_t{chunk} * samples / p.chunks) + row; i < sample_end;
         i += rows) {
        float x[8];
        load8(k + sample_token(i, samples, length) * p.k.stride_n, x);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[j] += x[j];
    }
    sum_rows<D>(sum, scratch, out);

    const T* v = head_rows<T>(p.v, p, slot) + part * 8;
    const auto begin = static_cast<std::int32_t>(std::int64_t{chunk} * length / p.chunks);
    const auto end = static_cast<std::int32_t>(std::int64_t{chunk + 1} * length / p.chunks);
    float cubes[8] = {};
    for (std::int32_t token = begin + row; token < end; token += rows * unroll) {
        float x[unroll][8];
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
#pragma unroll
            for (int j = 0; j < 8; ++j) x[u][j] = 0.0f;
            if (token + u * rows < end) load8(v + (token + u * rows) * p.v.stride_n, x[u]);
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
#pragma unroll
            for (int j = 0; j < 8; ++j) cubes[j] += fabsf(x[u][j]) * x[u][j] * x[u][j];
        }
    }
    sum_rows<D>(cubes, scratch, out + D);

    __threadfence();
    if (threadIdx.x == 0) last = atomicAdd(p.packed.counters + slot, 1) == p.chunks - 1;
    __syncthreads();
    if (last) {
        __threadfence();
        finish_statistics<D>(p, slot);
    }
}

// 256 / (D / 32) packed query rows: gathered, rotated, one scale a row.
template <class T, int D>
__device__ void pack_query_rows(const AttentionParams& p, std::int32_t index) {
    constexpr int lanes = D / kRowPart, rows = packed_rows(D);
    const BlockParams& blocks = p.q_blocks;
    const int lane = threadIdx.x % lanes;
    const std::int32_t padded = blocks.blocks() * blocks.block;
    const std::int32_t per_slot = (padded + rows - 1) / rows, slot = index / per_slot;
    const std::int32_t place = (index - slot * per_slot) * rows + static_cast<std::int32_t>(threadIdx.x) / lanes;
    const bool inside = place < padded;  // whole warps agree: padded is a multiple of 64
    if (!inside) return;
    const std::int32_t tile = place / blocks.block, row = place - tile * blocks.block;
    const std::int32_t order = p.plan.orders[slot % p.heads];

    float x[kRowPart] = {};
    if (row < p.layout.tokens_in(blocks, tile)) {
        const std::int64_t token = p.layout.token(blocks, order, tile, row);
        load_striped<T, D>(head_rows<T>(p.q, p, slot) + token * p.q.stride_n, lane, x);
    }
    rotate<D>(x, lane);
    std::uint32_t top = magnitude(x);
    top = max(top, __shfl_xor_sync(0xffffffffu, top, 1));
    if (lanes == 4) top = max(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float inverse = inverse_scale(top);
    std::int8_t* to = p.packed.q + (std::int64_t{slot} * blocks.blocks() + tile) * p.q_tile();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<uint4*>(to + tile_offset(row, run_chunk<D>(lane, half) * 16, D)) =
            quantise16(x + 16 * half, inverse);
    }
    if (lane == 0) {
        constexpr float log2e = 1.4426950408889634f;
        p.packed.q_scale[std::int64_t{slot} * padded + place] = scale_of(top) * (p.sm_scale * log2e / D);
    }
}

// Sums first: what follows waits for them, and the queries fill the chip meanwhile. sums: CTAs that sum.
template <class T, int D>
__device__ __forceinline__ void pack_queries_body(const AttentionParams& p, std::int32_t sums) {
    const auto index = static_cast<std::int32_t>(blockIdx.x);
    if (index < sums) {
        sum_chunk<T, D>(p, index / p.chunks, index % p.chunks);
    } else {
        pack_query_rows<T, D>(p, index - sums);
    }
}

}  // namespace paro::cuda
