// AVX2 + FMA + F16C (Haswell, Zen and later).
#include "cpu/attention_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include "cpu/attention_kernels_fp32.h"
#include "cpu/attention_kernels_int8.h"

namespace paro::cpu {
namespace {

struct Vec {
    using F = __m256;
    using I = __m256i;
    using Acc = I;  // of integer dot products
    static constexpr int W = 8, NV = 2, kGroup = 2;

    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
    static F set1(float a) { return _mm256_set1_ps(a); }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm256_max_ps(a, b); }
    static F min(F a, F b) { return _mm256_min_ps(a, b); }
    static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    static float hmax(F a) {
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
    }
    static float hsum(F a) {
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
    }
    // x = r + n, n an integer, |r| <= 1/2; p 2^n for x above -126.
    static constexpr bool kAnyExponent = false;
    static F split(F x, F& r) {
        const F t = add(x, set1(kRound));
        r = sub(x, sub(t, set1(kRound)));
        return t;
    }
    static F scale(F p, F t) {
        return _mm256_castsi256_ps(
            _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
    }

    // Element r of the result: all elements of x[r] joined by op.
    template <class Op>
    static F join_rows(const F (&x)[kRowLanes], Op op) {
        const auto pair = [&](F a, F b) { return op(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)); };
        const auto quad = [&](F a, F b) {
            const __m256d ad = _mm256_castps_pd(a), bd = _mm256_castps_pd(b);
            return op(_mm256_castpd_ps(_mm256_unpacklo_pd(ad, bd)), _mm256_castpd_ps(_mm256_unpackhi_pd(ad, bd)));
        };
        const F low = quad(pair(x[0], x[1]), pair(x[2], x[3])), high = quad(pair(x[4], x[5]), pair(x[6], x[7]));
        return op(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
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
    static F zero_below(F y, F x, F floor) { return _mm256_andnot_ps(_mm256_cmp_ps(x, floor, _CMP_LT_OQ), y); }

    // Walsh-Hadamard within the vector: every element meets its partner, the second of a pair changes sign.
    static F rotate(F a) {
        const F sign1 = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), sign2 = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
        const F sign4 = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
        a = _mm256_fmadd_ps(a, sign1, _mm256_permute_ps(a, 0xb1));
        a = _mm256_fmadd_ps(a, sign2, _mm256_permute_ps(a, 0x4e));
        return _mm256_fmadd_ps(a, sign4, _mm256_permute2f128_ps(a, a, 1));
    }

    static F load_f16(const std::uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static F load_bf16(const std::uint16_t* p) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
    static void store_f16(std::uint16_t* p, F a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    }
    static void store_bf16(std::uint16_t* p, F a) {
        const I bits = _mm256_castps_si256(a);
        const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const I rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const I nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
        const I y =
            _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)), nan), 16);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                         _mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
    }

    static I to_int(F a) { return _mm256_cvtps_epi32(a); }
    static I set1_int(std::int32_t a) { return _mm256_set1_epi32(a); }
    static I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
    static I load_int(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
    static void store_int(void* p, I a) { _mm256_storeu_si256(static_cast<I*>(p), a); }
    static I broadcast(const std::byte* p) {
        return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(p)));
    }
    static Acc start(I a) { return a; }
    static I finish(Acc a) { return a; }
    static I sub_int(I a, I b) { return _mm256_sub_epi32(a, b); }
    static I and_int(I a, I b) { return _mm256_and_si256(a, b); }
    static I max_int(I a, I b) { return _mm256_max_epi32(a, b); }
    static F as_float(I a) { return _mm256_castsi256_ps(a); }
    static I as_int(F a) { return _mm256_castps_si256(a); }
    static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
    // vpmaddubsw would saturate at 16 bits: 255 * 127 twice. Hence 16-bit integers.
    static I dot(I acc, I a, I b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
    static void store_weight(std::byte* p, I a) { store_int16(reinterpret_cast<std::int16_t*>(p), a); }
    static void store_int16(std::int16_t* p, I a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                         _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
    }
};

}  // namespace

const KernelTable* avx2_kernels() {
    static const KernelTable table = {attend_fp32<Vec>, attend_int8<Vec>, Vec::kGroup,
                                      kPanel<Vec>,      load_row<Vec>,    store_row<Vec>,
                                      prepare_row<Vec>, rotate_row<Vec>,  quantise_row<Vec>};
    return &table;
}

}  // namespace paro::cpu
#else
namespace paro::cpu {
const KernelTable* avx2_kernels() { return nullptr; }
}  // namespace paro::cpu
#endif
