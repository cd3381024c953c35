// What the kernels share over any vector type V: exponentials and the row passes of packing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "cpu/attention_kernels.h"

#if defined(__clang__)
#define PARO_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define PARO_UNROLL _Pragma("GCC unroll 16")
#else
#define PARO_UNROLL
#endif

namespace paro::cpu {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Columns that a register tile takes, and those of a panel.
template <class V>
constexpr std::int32_t kTile = V::NV* V::W;
template <class V>
constexpr std::int32_t kPanel = kTile<V> > kAlign ? kTile<V> : kAlign;

// 1.5 * 2^23: adding it rounds to the nearest integer, ties to even, and leaves that integer in the low mantissa bits.
constexpr float kRound = 12582912.0f;
// Weights below 2^-100 of the row's greatest count as zero: they cannot show in fp32, and denormals would cost time.
constexpr float kExpFloor = -100.0f;

// 2^x for x <= 0, relative error 2e-7, 2^0 = 1 exactly, 0 below kExpFloor, NaN for NaN.
// The polynomial is the relative minimax on [-1/2, 1/2] with constant term 1.
template <class V>
typename V::F exp2_fp32(typename V::F x) {
    using F = typename V::F;
    // max returns its second argument if that is NaN
    F r;
    const F n = V::split(V::kAnyExponent ? x : V::max(V::set1(kExpFloor), x), r);
    F p = V::fma(r, V::set1(1.326472725e-3f), V::set1(9.671512688e-3f));
    p = V::fma(p, r, V::set1(5.550733744e-2f));
    p = V::fma(p, r, V::set1(2.402224208e-1f));
    p = V::fma(p, r, V::set1(6.931469776e-1f));
    p = V::fma(p, r, V::set1(1.0f));
    return V::zero_below(V::scale(p, n), x, V::set1(kExpFloor));
}

template <class V>
void load_row(const void* src, DType dtype, float* dst, std::int32_t n) {
    const auto* half = static_cast<const std::uint16_t*>(src);
    switch (dtype) {
        case DType::f32:
            for (std::int32_t i = 0; i < n; i += V::W) V::store(dst + i, V::load(static_cast<const float*>(src) + i));
            break;
        case DType::f16:
            for (std::int32_t i = 0; i < n; i += V::W) V::store(dst + i, V::load_f16(half + i));
            break;
        case DType::bf16:
            for (std::int32_t i = 0; i < n; i += V::W) V::store(dst + i, V::load_bf16(half + i));
            break;
    }
}

template <class V>
void store_row(const float* x, float inverse, const float* channel, void* dst, DType dtype, std::int32_t n) {
    using F = typename V::F;
    auto* half = static_cast<std::uint16_t*>(dst);
    for (std::int32_t i = 0; i < n; i += V::W) {
        F y = V::mul(V::load(x + i), V::set1(inverse));
        if (channel) y = V::mul(y, V::load(channel + i));
        switch (dtype) {
            case DType::f32:
                V::store(static_cast<float*>(dst) + i, y);
                break;
            case DType::f16:
                V::store_f16(half + i, y);
                break;
            case DType::bf16:
                V::store_bf16(half + i, y);
                break;
        }
    }
}

template <class V>
float prepare_row(float* x, const float* shift, const float* factor, std::int32_t n) {
    using F = typename V::F;
    F top = V::set1(0.0f), probe = V::set1(0.0f);
    for (std::int32_t i = 0; i < n; i += V::W) {
        F y = V::load(x + i);
        if (shift) y = V::sub(y, V::load(shift + i));
        if (factor) y = V::mul(y, V::load(factor + i));
        V::store(x + i, y);
        top = V::max(top, V::abs(y));
        probe = V::fma(y, V::set1(0.0f), probe);  // 0 as long as y is finite, else NaN
    }
    return V::hmax(top) + V::hsum(probe);
}

// Stages from distance 1 up: the same sums in the same order for any width of V.
template <class V>
void rotate_row(float* x, std::int32_t n) {
    using F = typename V::F;
    for (std::int32_t i = 0; i < n; i += V::W) V::store(x + i, V::rotate(V::load(x + i)));
    for (std::int32_t step = V::W; step < n; step *= 2) {
        for (std::int32_t i = 0; i < n; i += 2 * step) {
            for (std::int32_t j = i; j < i + step; j += V::W) {
                const F a = V::load(x + j), b = V::load(x + j + step);
                V::store(x + j, V::add(a, b));
                V::store(x + j + step, V::sub(a, b));
            }
        }
    }
}

template <class V>
void quantise_row(const float* x, float inverse, std::int32_t offset, void* dst, std::int32_t n) {
    using F = typename V::F;
    for (std::int32_t i = 0; i < n; i += V::W) {
        F y = V::mul(V::load(x + i), V::set1(inverse));
        y = V::min(V::max(y, V::set1(-127.0f)), V::set1(127.0f));  // here NaN becomes -127: the scale carries it on
        const auto y32 = V::add_int(V::to_int(y), V::set1_int(offset));
        if constexpr (V::kGroup == 4) {
            V::store_int8(static_cast<std::uint8_t*>(dst) + i, y32);
        } else if constexpr (V::kGroup == 1) {
            V::store(static_cast<float*>(dst) + i, V::to_float(y32));
        } else {
            V::store_int16(static_cast<std::int16_t*>(dst) + i, y32);
        }
    }
}

}  // namespace paro::cpu
