// Rows of q, k, v in registers: 32 elements a thread, head_dim / 32 threads a row, loads of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cta_shapes.h"
#include "paro/cuda/params.h"
#include "ptx.cuh"

namespace paro::cuda {

__device__ __forceinline__ void widen(std::uint32_t pair, float& low, float& high, __nv_bfloat16) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ void widen(std::uint32_t pair, float& low, float& high, __half) {
    const __half2 both = *reinterpret_cast<const __half2*>(&pair);
    low = __low2float(both);
    high = __high2float(both);
}

// Eight elements from 16-byte aligned memory.
template <class T>
__device__ __forceinline__ void load8(const T* from, float* x) {
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
    widen(raw.x, x[0], x[1], T{});
    widen(raw.y, x[2], x[3], T{});
    widen(raw.z, x[4], x[5], T{});
    widen(raw.w, x[6], x[7], T{});
}
template <>
__device__ __forceinline__ void load8<float>(const float* from, float* x) {
    const float4 a = __ldg(reinterpret_cast<const float4*>(from));
    const float4 b = __ldg(reinterpret_cast<const float4*>(from) + 1);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

// "Striped": lane l of the row's threads holds in x[8 i + j] element 8 (i * lanes + l) + j: neighbouring threads read
// neighbouring bytes.
template <class T, int D>
__device__ __forceinline__ void load_striped(const T* row, int lane, float (&x)[kRowPart]) {
    constexpr int lanes = D / kRowPart;
#pragma unroll
    for (int i = 0; i < 4; ++i) load8(row + (i * lanes + lane) * 8, x + 8 * i);
}

// One half of a butterfly between two threads: lane bit `bit` and register bit `step` change places.
template <int step>
__device__ __forceinline__ void exchange_butterfly(float (&x)[kRowPart], int lane, int bit) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int r = 0; r < kRowPart; ++r) {
        if (r & step) continue;
        const float mine = upper ? x[r] : x[r + step];
        const float other = __shfl_xor_sync(0xffffffffu, mine, bit);
        const float a = upper ? other : x[r], b = upper ? x[r + step] : other;
        x[r] = a + b;
        x[r + step] = a - b;
    }
}

// x = H x for a striped row, H the Walsh-Hadamard matrix of order D. The result is "in runs": run_chunk() says which 16
// elements x[0..15] and x[16..31] are.
template <int D>
__device__ __forceinline__ void rotate(float (&x)[kRowPart], int lane) {
#pragma unroll
    for (int step = 1; step < kRowPart; step *= 2) {
#pragma unroll
        for (int r = 0; r < kRowPart; ++r) {
            if (r & step) continue;
            const float a = x[r], b = x[r + step];
            x[r] = a + b;
            x[r + step] = a - b;
        }
    }
    exchange_butterfly<8>(x, lane, 1);
    if (D == 128) exchange_butterfly<16>(x, lane, 2);
}

// Which 16 consecutive elements a thread holds in x[16 half ..] of a row in runs.
template <int D>
__device__ __forceinline__ int run_chunk(int lane, int half) {
    return D == 128 ? lane * 2 + half : half * 2 + lane;
}

// Greatest magnitude as bits: NaN and infinity come out on top, unlike with a float maximum.
__device__ __forceinline__ std::uint32_t magnitude(const float (&x)[kRowPart]) {
    std::uint32_t top = 0;
#pragma unroll
    for (int r = 0; r < kRowPart; ++r) top = max(top, __float_as_uint(x[r]) & 0x7fffffffu);
    return top;
}
// Rows too small to divide by count as zero.
__device__ __forceinline__ float inverse_scale(std::uint32_t magnitude_bits) {
    const float amax = __uint_as_float(magnitude_bits);
    return amax >= 1e-30f && magnitude_bits < 0x7f800000u ? 127.0f / amax : 0.0f;
}
// amax / 127; NaN if anything was not finite, which carries it into the output.
__device__ __forceinline__ float scale_of(std::uint32_t magnitude_bits) {
    return magnitude_bits < 0x7f800000u ? __uint_as_float(magnitude_bits) * (1.0f / 127.0f)
                                        : __int_as_float(0x7fffffff);
}
// x * inverse rounded to s8, sixteen of them.
__device__ __forceinline__ uint4 quantise16(const float* x, float inverse) {
    uint4 word;
    word.x = round_bytes(x[0] * inverse, x[1] * inverse, x[2] * inverse, x[3] * inverse);
    word.y = round_bytes(x[4] * inverse, x[5] * inverse, x[6] * inverse, x[7] * inverse);
    word.z = round_bytes(x[8] * inverse, x[9] * inverse, x[10] * inverse, x[11] * inverse);
    word.w = round_bytes(x[12] * inverse, x[13] * inverse, x[14] * inverse, x[15] * inverse);
    return word;
}

}  // namespace paro::cuda
