// Second launch of packing: a block of keys and values per CTA, gathered, quantised, v transposed; and with the tail
// the mean key and value of each grid block. Third launch: those means, quantised as key tiles of their own.
#pragma once

#include "pack_queries.cuh"

namespace paro::cuda {

template <int D, int BLOCK>
struct KeyTile {
    static constexpr int lanes = D / kRowPart, threads = pack_key_threads(D, BLOCK), warps = threads / 32;
    static constexpr int words = D / 4;  // of a row of s8

    // Rows of v in s8 on their way to columns, and sums per warp; used one after the other.
    union Shared {
        std::uint32_t v[BLOCK][words];
        float sums[warps][2][D];
    };
};

// Where word `word` of key `key` stands in Shared::v: mixed so that neither rows nor columns meet one bank too often.
template <int D, int BLOCK>
__device__ __forceinline__ int mixed_word(int key, int word) {
    constexpr int step = BLOCK == 64 ? 8 : 4, count = 32 / step;
    return word ^ (((key + (key >> 4)) % count * step) & (D / 4 - 1));
}

// Four words of four bytes, transposed.
__device__ __forceinline__ void transpose_bytes(std::uint32_t (&x)[4]) {
    const std::uint32_t a = __byte_perm(x[0], x[1], 0x5140), b = __byte_perm(x[2], x[3], 0x5140);
    const std::uint32_t c = __byte_perm(x[0], x[1], 0x7362), d = __byte_perm(x[2], x[3], 0x7362);
    x[0] = __byte_perm(a, b, 0x5410);
    x[1] = __byte_perm(a, b, 0x7632);
    x[2] = __byte_perm(c, d, 0x5410);
    x[3] = __byte_perm(c, d, 0x7632);
}

// Rows of bytes in shared memory to the v tile: transposed, keys at their places (v_place).
template <int D, int BLOCK>
__device__ __forceinline__ void store_transposed(const std::uint32_t (*rows)[D / 4], std::uint8_t* tile) {
    constexpr int groups = BLOCK / 16;
    for (int unit = threadIdx.x; unit < groups * (D / 4); unit += KeyTile<D, BLOCK>::threads) {
        const int group = unit % groups, word = unit / groups;
        std::uint32_t out[4][4];  // [channel][t]
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            std::uint32_t x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int key = v_key(16 * group + 4 * t + i);
                x[i] = rows[key][mixed_word<D, BLOCK>(key, word)];
            }
            transpose_bytes(x);
#pragma unroll
            for (int c = 0; c < 4; ++c) out[c][t] = x[c];
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            *reinterpret_cast<uint4*>(tile + tile_offset(4 * word + c, 16 * group, BLOCK)) =
                make_uint4(out[c][0], out[c][1], out[c][2], out[c][3]);
        }
    }
}

// Quantises a block of which thread (row, lane) holds keys in runs and values striped, and stores both tiles.
template <int D, int BLOCK>
__device__ __forceinline__ void store_tiles(const AttentionParams& p, std::int64_t tile, int row, int lane,
                                            const float (&k)[kRowPart], const float (&v)[kRowPart],
                                            typename KeyTile<D, BLOCK>::Shared& shared) {
    using Tile = KeyTile<D, BLOCK>;
    __shared__ std::uint32_t tops[2][Tile::warps];
    const std::uint32_t k_warp = __reduce_max_sync(0xffffffffu, magnitude(k));
    const std::uint32_t v_warp = __reduce_max_sync(0xffffffffu, magnitude(v));
    if (threadIdx.x % 32 == 0) {
        tops[0][threadIdx.x / 32] = k_warp;
        tops[1][threadIdx.x / 32] = v_warp;
    }
    __syncthreads();
    std::uint32_t k_top = 0, v_top = 0;
#pragma unroll
    for (int w = 0; w < Tile::warps; ++w) {
        k_top = max(k_top, tops[0][w]);
        v_top = max(v_top, tops[1][w]);
    }
    if (threadIdx.x == 0) {
        p.packed.kv_scale[tile] = make_float2(scale_of(k_top), scale_of(v_top) * kScaleUp);
    }

    const float k_inverse = inverse_scale(k_top), v_inverse = inverse_scale(v_top);
    std::int8_t* k_tile = p.packed.k + tile * BLOCK * D;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<uint4*>(k_tile + tile_offset(row, run_chunk<D>(lane, half) * 16, D)) =
            quantise16(k + 16 * half, k_inverse);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float* x = v + 8 * i;
        const auto word_of = [&](int at) {
            return round_bytes<kValueShift>(x[at] * v_inverse, x[at + 1] * v_inverse, x[at + 2] * v_inverse,
                                            x[at + 3] * v_inverse);
        };
        const int word = mixed_word<D, BLOCK>(row, (i * Tile::lanes + lane) * 2);
        *reinterpret_cast<uint2*>(&shared.v[row][word]) = make_uint2(word_of(0), word_of(4));
    }
    __syncthreads();
    store_transposed<D, BLOCK>(shared.v, p.packed.v + tile * BLOCK * D);
}

// Sums over the rows of a warp: lanes that differ in bit `bit` halve the registers they keep. Returns through x[0 ..].
template <int count, int bit>
__device__ __forceinline__ void sum_warp_rows(float (&x)[kRowPart]) {
    const bool upper = (threadIdx.x & bit) != 0;
#pragma unroll
    for (int r = 0; r < count / 2; ++r) {
        const float mine = upper ? x[r] : x[r + count / 2];
        const float other = __shfl_xor_sync(0xffffffffu, mine, bit);
        x[r] = (upper ? x[r + count / 2] : x[r]) + other;
    }
    if constexpr (bit < 16) sum_warp_rows<count / 2, bit * 2>(x);
}

// The register of a thread's 32 that x[0] holds after sum_warp_rows<32, lanes>.
template <int lanes>
__device__ __forceinline__ int first_summed() {
    int first = 0, count = kRowPart;
#pragma unroll
    for (int bit = lanes; bit < 32; bit *= 2) {
        count /= 2;
        if (threadIdx.x & bit) first += count;
    }
    return first;
}

// Mean key and value of a grid block. Destroys k and v.
template <int D, int BLOCK>
__device__ __forceinline__ void store_means(const AttentionParams& p, std::int32_t slot, std::int32_t grid_block,
                                            int count, int lane, float (&k)[kRowPart], float (&v)[kRowPart],
                                            typename KeyTile<D, BLOCK>::Shared& shared) {
    using Tile = KeyTile<D, BLOCK>;
    constexpr int left = kRowPart * Tile::lanes / 32;  // registers that a thread keeps
    sum_warp_rows<kRowPart, Tile::lanes>(k);
    sum_warp_rows<kRowPart, Tile::lanes>(v);
    const int warp = threadIdx.x / 32, first = first_summed<Tile::lanes>();
#pragma unroll
    for (int r = 0; r < left; ++r) {
        const int at = first + r;
        shared.sums[warp][0][run_chunk<D>(lane, at / 16) * 16 + at % 16] = k[r];
        shared.sums[warp][1][(at / 8 * Tile::lanes + lane) * 8 + at % 8] = v[r];
    }
    __syncthreads();
    const float inverse = 1.0f / static_cast<float>(count);
    const std::int64_t at = (std::int64_t{slot} * p.panels * BLOCK + grid_block) * D;
    for (int i = threadIdx.x; i < 2 * D; i += Tile::threads) {
        const int which = i / D, d = i % D;
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < Tile::warps; ++w) sum += shared.sums[w][which][d];
        (which ? p.packed.pooled_v : p.packed.pooled_k)[at + d] = sum * inverse;
    }
}

template <class T, int D, int BLOCK>
__device__ __forceinline__ void pack_keys_body(const AttentionParams& p) {
    using Tile = KeyTile<D, BLOCK>;
    __shared__ typename Tile::Shared shared;
    const std::int32_t blocks = p.kv_blocks.blocks(), index = static_cast<std::int32_t>(blockIdx.x);
    const std::int32_t slot = index / blocks, block = index - slot * blocks;
    const int lane = threadIdx.x % Tile::lanes, row = threadIdx.x / Tile::lanes;
    const std::int32_t count = p.layout.tokens_in(p.kv_blocks, block);

    float k[kRowPart] = {}, v[kRowPart] = {};
    if (row < count) {
        const std::int64_t token = p.layout.token(p.kv_blocks, p.plan.orders[slot % p.heads], block, row);
        load_striped<T, D>(head_rows<T>(p.k, p, slot) + token * p.k.stride_n, lane, k);
        load_striped<T, D>(head_rows<T>(p.v, p, slot) + token * p.v.stride_n, lane, v);
        const float* shift = p.packed.shift + std::int64_t{slot} * D;
        const float* inverse = p.packed.channel_inverse + std::int64_t{slot} * D;
        float other[kRowPart];
        load_striped<float, D>(shift, lane, other);
#pragma unroll
        for (int r = 0; r < kRowPart; ++r) k[r] -= other[r];
        load_striped<float, D>(inverse, lane, other);
#pragma unroll
        for (int r = 0; r < kRowPart; ++r) v[r] *= other[r];
    }
    rotate<D>(k, lane);
    store_tiles<D, BLOCK>(p, std::int64_t{slot} * p.key_tiles() + block, row, lane, k, v, shared);
    if (p.panels == 0 || !p.kv_blocks.is_grid(block)) return;
    __syncthreads();
    store_means<D, BLOCK>(p, slot, block - p.kv_blocks.prefix_blocks, count, lane, k, v, shared);
}

template <int D, int BLOCK>
__device__ __forceinline__ void pack_pooled_body(const AttentionParams& p) {
    using Tile = KeyTile<D, BLOCK>;
    __shared__ typename Tile::Shared shared;
    const auto index = static_cast<std::int32_t>(blockIdx.x);
    const std::int32_t slot = index / p.panels, panel = index - slot * p.panels;
    const int lane = threadIdx.x % Tile::lanes, row = threadIdx.x / Tile::lanes;
    const std::int32_t number = panel * BLOCK + row;
    const bool is_last = number == p.last_pooled;
    const std::int32_t grid_block = is_last ? p.kv_blocks.grid_blocks - 1 : number;
    float k[kRowPart] = {}, v[kRowPart] = {};
    if (is_last || number < p.pooled_in_order()) {
        const std::int64_t at = (std::int64_t{slot} * p.panels * BLOCK + grid_block) * D;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* from = p.packed.pooled_k + at + run_chunk<D>(lane, half) * 16;
            load8(from, k + 16 * half);
            load8(from + 8, k + 16 * half + 8);
        }
        load_striped<float, D>(p.packed.pooled_v + at, lane, v);
    }
    const std::int64_t tile = std::int64_t{slot} * p.key_tiles() + p.kv_blocks.blocks() + panel;
    store_tiles<D, BLOCK>(p, tile, row, lane, k, v, shared);
}

}  // namespace paro::cuda
