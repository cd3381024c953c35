// The vector type of both AVX-512 units. For them alone: it sits in an anonymous namespace on purpose.
#pragma once

#include <immintrin.h>

#include "cpu/attention_kernels_vector.h"

namespace paro::cpu {
namespace {

struct Vec {
    using F = __m512;
    using I = __m512i;
    using Acc = I;  // of integer dot products
    static constexpr int W = 16, NV = 4;
#if defined(PARO_VNNI)
    static constexpr int kGroup = 4;
#else
    static constexpr int kGroup = 2;
#endif

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static F set1(float a) { return _mm512_set1_ps(a); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F abs(F a) { return _mm512_abs_ps(a); }
    static float hmax(F a) { return _mm512_reduce_max_ps(a); }
    static float hsum(F a) { return _mm512_reduce_add_ps(a); }
    // x = r + n, n an integer, |r| <= 1/2; p 2^n, with n far below any exponent as well.
    static constexpr bool kAnyExponent = true;
    static F split(F x, F& r) {
        const F n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        r = _mm512_sub_ps(x, n);
        return n;
    }
    static F scale(F p, F n) { return _mm512_scalef_ps(p, n); }

    // Element r of the result: all elements of x[r] joined by op.
    template <class Op>
    static F join_rows(const F (&x)[kRowLanes], Op op) {
        const auto pair = [&](F a, F b) { return op(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
        const auto quad = [&](F a, F b) {
            const __m512d ad = _mm512_castps_pd(a), bd = _mm512_castps_pd(b);
            return op(_mm512_castpd_ps(_mm512_unpacklo_pd(ad, bd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ad, bd)));
        };
        const F low = quad(pair(x[0], x[1]), pair(x[2], x[3])), high = quad(pair(x[4], x[5]), pair(x[6], x[7]));
        const F y = op(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
        const F z = op(y, _mm512_shuffle_f32x4(y, y, 0xb1));
        return _mm512_shuffle_f32x4(z, z, 0x88);
    }
    static void max_rows(const F (&x)[kRowLanes], float* out) {
        store(out, join_rows(x, [](F a, F b) { return max(a, b); }));
    }
    static void sum_rows(const F (&x)[kRowLanes], float* out) {
        store(out, join_rows(x, [](F a, F b) { return add(a, b); }));
    }
    static void max_rows(const I (&x)[kRowLanes], std::int32_t* out) {
        store_int(out, join_rows_int(x, [](I a, I b) { return max_int(a, b); }));
    }
    static void sum_rows(const I (&x)[kRowLanes], std::int32_t* out) {
        store_int(out, join_rows_int(x, [](I a, I b) { return add_int(a, b); }));
    }
    template <class Op>
    static I join_rows_int(const I (&x)[kRowLanes], Op op) {
        F y[kRowLanes];
        PARO_UNROLL for (int r = 0; r < kRowLanes; ++r) y[r] = as_float(x[r]);
        return as_int(join_rows(y, [&](F a, F b) { return as_float(op(as_int(a), as_int(b))); }));
    }
    static F zero_below(F y, F x, F floor) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, floor, _CMP_NLT_UQ), y); }

    // Walsh-Hadamard within the vector: every element meets its partner, the second of a pair changes sign.
    static F rotate(F a) {
        const F one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f);
        a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xaaaa, minus), _mm512_permute_ps(a, 0xb1));
        a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xcccc, minus), _mm512_permute_ps(a, 0x4e));
        a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xf0f0, minus), _mm512_shuffle_f32x4(a, a, 0xb1));
        return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xff00, minus), _mm512_shuffle_f32x4(a, a, 0x4e));
    }

    static F load_f16(const std::uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static F load_bf16(const std::uint16_t* p) {
        const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
    static void store_f16(std::uint16_t* p, F a) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    }
    static void store_bf16(std::uint16_t* p, F a) {
        const I bits = _mm512_castps_si512(a);
        const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        I y = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
        y = _mm512_mask_or_epi32(y, nan, bits, _mm512_set1_epi32(0x400000));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16)));
    }

    static I to_int(F a) { return _mm512_cvtps_epi32(a); }
    static I set1_int(std::int32_t a) { return _mm512_set1_epi32(a); }
    static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
    static I load_int(const void* p) { return _mm512_loadu_si512(p); }
    static void store_int(void* p, I a) { _mm512_storeu_si512(p, a); }
    static I broadcast(const std::byte* p) {
        return _mm512_castps_si512(_mm512_broadcastss_ps(_mm_load_ss(reinterpret_cast<const float*>(p))));
    }
    static Acc start(I a) { return a; }
    static I finish(Acc a) { return a; }
    static I sub_int(I a, I b) { return _mm512_sub_epi32(a, b); }
    static I and_int(I a, I b) { return _mm512_and_si512(a, b); }
    static I max_int(I a, I b) { return _mm512_max_epi32(a, b); }
    static F as_float(I a) { return _mm512_castsi512_ps(a); }
    static I as_int(F a) { return _mm512_castps_si512(a); }
    static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
#if defined(PARO_VNNI)
    static I dot(I acc, I a, I b) { return _mm512_dpbusd_epi32(acc, a, b); }
    static void store_weight(std::byte* p, I a) { store_int8(reinterpret_cast<std::uint8_t*>(p), a); }
#else
    static I dot(I acc, I a, I b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
    static void store_weight(std::byte* p, I a) { store_int16(reinterpret_cast<std::int16_t*>(p), a); }
#endif
    static void store_int16(std::int16_t* p, I a) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
    }
    static void store_int8(std::uint8_t* p, I a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    }
};

}  // namespace
}  // namespace paro::cpu
