// o to the tokens' original places, from the accumulators of m16n8 products.
#pragma once

#include <type_traits>

#include "paro/cuda/params.h"
#include "ptx.cuh"

namespace paro::cuda {

__device__ __forceinline__ std::uint32_t narrow(float low, float high, __nv_bfloat16) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
}
__device__ __forceinline__ std::uint32_t narrow(float low, float high, __half) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
}

// Where row `row` of a query tile goes: elements from o.data, or -1 for padding.
__device__ __forceinline__ std::int64_t output_offset(const AttentionParams& p, std::int32_t slot, std::int32_t tile,
                                                      std::int32_t row) {
    if (row >= p.layout.tokens_in(p.q_blocks, tile)) return -1;
    const std::int32_t batch = slot / p.heads, head = slot - batch * p.heads;
    const std::int64_t token = p.layout.token(p.q_blocks, p.plan.orders[head], tile, row);
    return batch * p.o.stride_b + head * p.o.stride_h + token * p.o.stride_n;
}

// Whether any of eight elements is not finite.
template <class T>
__device__ __forceinline__ bool any_broken(const uint4& data) {
    std::uint32_t seen = note_broken<T>(data.x, 0u);
    seen = note_broken<T>(data.y, seen);
    seen = note_broken<T>(data.z, seen);
    return (note_broken<T>(data.w, seen) & 0x7fff7fffu) != 0;
}

// Elements that are not finite become 0.
template <class T>
__device__ __forceinline__ void mend(std::uint32_t& pair) {
    constexpr std::uint32_t exponent = std::is_same_v<T, __half> ? 0x7c00 : 0x7f80;
    std::uint32_t fine = 0;
    if ((pair & exponent) != exponent) fine |= 0xffffu;
    if ((pair >> 16 & exponent) != exponent) fine |= 0xffff0000u;
    pair &= fine;
}

// Of what is not finite the bits of `keep` stay; whether it is finite.
__device__ __forceinline__ bool mend(float& x, std::uint32_t keep) {
    const std::uint32_t bits = __float_as_uint(x), exponent = 0x7f800000u;
    const bool fine = (bits & exponent) != exponent;
    if (!fine) x = __uint_as_float(bits & keep);
    return fine;
}

// The 16 * MT rows of a warp, o[mt][nt][i] as accumulators hold them. `offset`: lane r's is that of row r. 16-bit rows
// go through `staging`, 16 * MT * (2 D + 16) bytes of shared memory of the warp's own, to leave as whole lines.
template <class T, int D, int MT>
__device__ __forceinline__ void store_half(const AttentionParams& p, const float (&o)[MT][D / 8][4],
                                           std::int64_t offset, unsigned char* staging) {
    constexpr int stride = 2 * D + 16, pieces = D / 8;
    const int lane = threadIdx.x % 32;
    __syncwarp();  // all lanes are done with what staging held before
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                unsigned char* at = staging + (mt * 16 + half * 8 + lane / 4) * stride + (nt * 8 + lane % 4 * 2) * 2;
                *reinterpret_cast<std::uint32_t*>(at) = narrow(o[mt][nt][2 * half], o[mt][nt][2 * half + 1], T{});
            }
        }
    }
    __syncwarp();
    // As many turns for every lane: the compiler is to know it. Several at once hide what each waits for, but with a
    // head dim of 64 ptxas then makes another loop over key tiles, too.
    constexpr int turns = MT * pieces / 2, at_once = D == 128 ? 4 : 1;
#pragma unroll 1
    for (int first = 0; first < turns; first += at_once) {
        uint4 data[at_once];
        T* to[at_once];
        bool broken = false;
#pragma unroll
        for (int turn = 0; turn < at_once; ++turn) {
            const int i = (first + turn) * 32 + lane;
            const int row = i / pieces, piece = i % pieces;
            const std::int64_t place = __shfl_sync(0xffffffffu, offset, row);
            to[turn] = place < 0 ? nullptr : static_cast<T*>(p.o.data) + place + piece * 8;
            data[turn] = *reinterpret_cast<const uint4*>(staging + row * stride + piece * 16);
            broken |= place >= 0 && any_broken<T>(data[turn]);
        }
        if (broken && p.broken) {
#pragma unroll
            for (uint4& x : data) mend<T>(x.x), mend<T>(x.y), mend<T>(x.z), mend<T>(x.w);
            *p.broken = 1;
        }
#pragma unroll
        for (int turn = 0; turn < at_once; ++turn) {
            if (to[turn]) *reinterpret_cast<uint4*>(to[turn]) = data[turn];
        }
    }
}

template <int D, int MT>
__device__ __forceinline__ void store_float(const AttentionParams& p, const float (&o)[MT][D / 8][4],
                                            std::int64_t offset) {
    const int lane = threadIdx.x % 32;
    const std::uint32_t keep = p.broken ? 0u : ~0u;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            bool fine = true;
            const std::int64_t to = __shfl_sync(0xffffffffu, offset, mt * 16 + half * 8 + lane / 4);
            float* row = static_cast<float*>(p.o.data) + to + lane % 4 * 2;
#pragma unroll
            for (int nt = 0; nt < D / 8; ++nt) {
                float2 pair = make_float2(o[mt][nt][2 * half], o[mt][nt][2 * half + 1]);
                fine &= mend(pair.x, keep) & mend(pair.y, keep);
                if (to >= 0) *reinterpret_cast<float2*>(row + nt * 8) = pair;
            }
            if (to >= 0 && !fine && p.broken) *p.broken = 1;
        }
    }
}

template <int D, int MT>
__device__ __forceinline__ void store_output(const AttentionParams& p, const float (&o)[MT][D / 8][4],
                                             std::int64_t offset, unsigned char* staging) {
    if (p.dtype == DType::bf16) {
        store_half<__nv_bfloat16, D, MT>(p, o, offset, staging);
    } else if (p.dtype == DType::f16) {
        store_half<__half, D, MT>(p, o, offset, staging);
    } else {
        store_float<D, MT>(p, o, offset);
    }
}

}  // namespace paro::cuda
