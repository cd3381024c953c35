// Scores of query rows against tiles of 64 keys, for the kernels that look at attention without computing it.
#pragma once

#include "pack_queries.cuh"

#if defined(PARO_EMULATE)
#include "emulated_votes.h"  // tests/cuda/emulator
#else
namespace paro::cuda {

// d = a b over 16 elements: a product that starts a sum costs no zeros in registers.
template <class T>
__device__ __forceinline__ void mma_half_first(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                               std::uint32_t b1);
template <>
__device__ __forceinline__ void mma_half_first<__nv_bfloat16>(float (&d)[4], const std::uint32_t (&a)[4],
                                                              std::uint32_t b0, std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}
template <>
__device__ __forceinline__ void mma_half_first<__half>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                       std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// log2 on the special-function unit; off by 2^-22 at most where the result is near 0.
__device__ __forceinline__ float log2_fast(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
}  // namespace paro::cuda
#endif

namespace paro::cuda {

constexpr int kScoreTiles = kScoreKeys / 8;
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }
__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

// Byte of 16-byte piece `piece` of a row of D 16-bit elements, mixed against bank conflicts.
template <int D>
__device__ __forceinline__ int row_byte(int row, int piece) {
    return row * 2 * D + ((piece ^ (row & 7)) << 4);
}

// The same place in rows cut into panels of 64 elements, as wgmma wants them: `rows` rows of 128 bytes each.
template <int D>
__device__ __forceinline__ int panel_byte(int row, int piece, int rows) {
    return piece / 8 * rows * 128 + tile_offset(row, piece % 8 * 16, 128);
}

// COUNT rows of D 16-bit elements to shared memory by THREADS threads, in rows or in panels; a lane finds the place of
// one row for its warp.
template <class T, int D, int COUNT, int THREADS = kScoreThreads, bool PANELS = false>
struct RowCopy {
    static constexpr int pieces = D / 8, in_warp = 32 / pieces, per_pass = THREADS / pieces;
    static constexpr int passes = COUNT / per_pass, bytes = COUNT * D * 2;
    static_assert(COUNT % per_pass == 0 && passes * in_warp <= 32);

    // The row whose place this lane finds; past COUNT for lanes that are not asked.
    __device__ static int row() {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        return lane / in_warp * per_pass + warp * in_warp + lane % in_warp;
    }
    // `place`: of row(), in rows of `stride` elements from base; -1 for zeros.
    __device__ static void copy(const T* base, std::int64_t stride, std::int32_t place, std::uint32_t to) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, piece = lane % pieces;
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            const std::int32_t from = __shfl_sync(0xffffffffu, place, i * in_warp + lane / pieces);
            const int row = i * per_pass + warp * in_warp + lane / pieces;
            const int byte = PANELS ? panel_byte<D>(row, piece, COUNT) : row_byte<D>(row, piece);
            copy16_async(to + byte, base + (from < 0 ? 0 : from) * stride + piece * 8, from >= 0);
        }
    }
};

// Runs use(t, stage) for tiles 0 .. tiles - 1, each brought by fetch(t, stage) STAGES - 1 tiles before. begin() runs
// once what was copied before the call has come. Ends with nothing under way and all threads past the last tile.
template <int STAGES, class Begin, class Fetch, class Use>
__device__ __forceinline__ void stream_tiles(int tiles, Begin begin, Fetch fetch, Use use) {
    commit_copies();
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) {
        if (i < tiles) fetch(i, i);
        commit_copies();
    }
    wait_copies<STAGES - 1>();
    __syncthreads();
    begin();
    if constexpr (STAGES == 1) {
        for (int t = 0; t < tiles; ++t) {
            __syncthreads();
            fetch(t, 0);
            commit_copies();
            wait_copies<0>();
            __syncthreads();
            use(t, 0);
        }
    } else {
        int at = 0, to = STAGES - 1;
        for (int t = 0; t < tiles; ++t) {
            wait_copies<STAGES - 2>();
            __syncthreads();
            if (t + STAGES - 1 < tiles) fetch(t + STAGES - 1, to);
            commit_copies();
            use(t, at);
            to = at;
            at = at + 1 == STAGES ? 0 : at + 1;
        }
    }
    wait_copies<0>();
    __syncthreads();
}

// The 16 * MT query rows of a warp as A operands: held in registers, or read again for every tile.
template <int D, int MT>
struct HeldQueries {
    std::uint32_t a[D / 16][MT][4];
    __device__ __forceinline__ void load(std::uint32_t rows) {
        const std::uint32_t lane_at =
            rows + row_byte<D>(threadIdx.x / 32 * 16 * MT + threadIdx.x % 16, threadIdx.x % 32 / 16);
#pragma unroll
        for (int ks = 0; ks < D / 16; ++ks) {
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) load_matrices(a[ks][mt], (lane_at ^ (ks << 5)) + mt * 16 * 2 * D);
        }
    }
    __device__ __forceinline__ void get(int ks, std::uint32_t (&out)[MT][4]) const {
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) out[mt][i] = a[ks][mt][i];
        }
    }
};
template <int D, int MT>
struct SharedQueries {
    std::uint32_t lane_at;
    __device__ __forceinline__ void load(std::uint32_t rows) {
        lane_at = rows + row_byte<D>(threadIdx.x / 32 * 16 * MT + threadIdx.x % 16, threadIdx.x % 32 / 16);
    }
    __device__ __forceinline__ void get(int ks, std::uint32_t (&out)[MT][4]) const {
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) load_matrices(out[mt], (lane_at ^ (ks << 5)) + mt * 16 * 2 * D);
    }
};

// s[mt][nt][2 half + i]: row 16 mt + 8 half + lane / 4 of the warp, key 8 nt + 2 (lane % 4) + i. Unscaled.
template <int MT>
using TileScores = float[MT][kScoreTiles][4];

// `keys`: where the tile's 64 rows start.
template <class T, int D, int MT, class Queries>
__device__ __forceinline__ void score_tile(const Queries& q, std::uint32_t keys, TileScores<MT>& s) {
    const int lane = threadIdx.x % 32;
    const std::uint32_t k = keys + row_byte<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int ks = 0; ks < D / 16; ++ks) {
        std::uint32_t a[MT][4];
        q.get(ks, a);
#pragma unroll
        for (int pair = 0; pair < kScoreTiles / 2; ++pair) {
            std::uint32_t b[4];
            load_matrices(b, (k ^ (ks << 5)) + pair * 16 * 2 * D);
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) {
                if (ks == 0) {
                    mma_half_first<T>(s[mt][2 * pair], a[mt], b[0], b[1]);
                    mma_half_first<T>(s[mt][2 * pair + 1], a[mt], b[2], b[3]);
                } else {
                    mma_half<T>(s[mt][2 * pair], a[mt], b[0], b[1]);
                    mma_half<T>(s[mt][2 * pair + 1], a[mt], b[2], b[3]);
                }
            }
        }
    }
}

// Columns at and past `count` get -infinity.
template <int MT>
__device__ __forceinline__ void mask_columns(TileScores<MT>& s, int count) {
    if (count >= kScoreKeys) return;
    const int mine = threadIdx.x % 4 * 2;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int nt = 0; nt < kScoreTiles; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (8 * nt + mine + i % 2 >= count) s[mt][nt][i] = minus_infinity();
            }
        }
    }
}

// Of the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Where exponentials count from: a row of nothing but -infinity gives zeros and not NaN.
__device__ __forceinline__ float exponent_base(float maximum) { return maximum == minus_infinity() ? 0.0f : maximum; }

}  // namespace paro::cuda
