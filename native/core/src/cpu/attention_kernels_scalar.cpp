// Plain C++: any processor. Vectors of four floats as arrays, which compilers turn into SSE2 or NEON.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/attention_kernels_fp32.h"
#include "cpu/attention_kernels_int8.h"

namespace paro::cpu {
namespace {

float f16_to_float(std::uint16_t h) {
    const std::uint32_t sign = std::uint32_t{h & 0x8000u} << 16;
    const std::uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
}

// Nearest, ties to even.
std::uint16_t float_to_f16(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    std::uint32_t result;
    if (magnitude > 0x7f800000u) {
        result = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
        result = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: denormal, in units of 2^-24
        result = static_cast<std::uint32_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p24f));
    } else {
        result = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return static_cast<std::uint16_t>(sign | result);
}

std::uint16_t float_to_bf16(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Four numbers that are worked on at once. Compilers with vector types turn them into SSE2 or NEON registers; arrays
// are left to the optimiser, which does worse.
#if defined(__GNUC__)
using F4 = float __attribute__((vector_size(16)));
using I4 = std::int32_t __attribute__((vector_size(16)));
using U4 = std::uint32_t __attribute__((vector_size(16)));
#else
template <class T>
struct Four {
    T x[4];
    T& operator[](int i) { return x[i]; }
    T operator[](int i) const { return x[i]; }
};
using F4 = Four<float>;
using I4 = Four<std::int32_t>;
using U4 = Four<std::uint32_t>;
#define PARO_FOUR(op)                                                                \
    template <class T>                                                               \
    Four<T> operator op(Four<T> a, Four<T> b) {                                      \
        return {T(a[0] op b[0]), T(a[1] op b[1]), T(a[2] op b[2]), T(a[3] op b[3])}; \
    }
PARO_FOUR(+)
PARO_FOUR(-)
PARO_FOUR(*)
PARO_FOUR(&)
PARO_FOUR(<<)
#endif

template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

template <class To, class Op>
To map(Op op) {
    return To{op(0), op(1), op(2), op(3)};
}

struct Vec {
    using F = F4;
    using I = I4;
    // int8: integers travel as floats, which hold them exactly (sums stay below 2^24). There is no integer dot product
    // that every compiler would find, but all of them know multiply and add.
    using Acc = F4;
    static constexpr int W = 4, kGroup = 1;
#if defined(__aarch64__)
    static constexpr int NV = 4;  // 32 registers
#else
    static constexpr int NV = 2;
#endif

    static F load(const float* p) {
        F a;
        std::memcpy(&a, p, sizeof(a));
        return a;
    }
    static void store(float* p, F a) { std::memcpy(p, &a, sizeof(a)); }
    static F set1(float a) { return F{a, a, a, a}; }
    static F add(F a, F b) { return a + b; }
    static F sub(F a, F b) { return a - b; }
    static F mul(F a, F b) { return a * b; }
    static F fma(F a, F b, F c) { return a * b + c; }
    // As the processors have it: the second if either is NaN.
    static F max(F a, F b) {
        return map<F>([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
    }
    static F min(F a, F b) {
        return map<F>([&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
    }
    static F abs(F a) { return bits_as<F>(bits_as<U4>(a) & U4{0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff}); }
    static float hmax(F a) { return std::max(std::max(a[0], a[2]), std::max(a[1], a[3])); }
    static float hsum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
    // x = r + n, n an integer, |r| <= 1/2; p 2^n for x above -126.
    static constexpr bool kAnyExponent = false;
    static F split(F x, F& r) {
        const F t = add(x, set1(kRound));
        r = sub(x, sub(t, set1(kRound)));
        return t;
    }
    static F scale(F p, F t) { return bits_as<F>(bits_as<U4>(p) + (bits_as<U4>(t) << U4{23, 23, 23, 23})); }
    static F zero_below(F y, F x, F floor) {
        return map<F>([&](int i) { return x[i] < floor[i] ? 0.0f : y[i]; });
    }
    template <class Row, class T, class Op>
    static void join_rows(const Row (&x)[kRowLanes], T* out, Op op) {
        for (int r = 0; r < kRowLanes; ++r) out[r] = op(op(x[r][0], x[r][1]), op(x[r][2], x[r][3]));
    }
    static void max_rows(const F (&x)[kRowLanes], float* out) {
        join_rows(x, out, [](float a, float b) { return a > b ? a : b; });
    }
    static void sum_rows(const F (&x)[kRowLanes], float* out) {
        join_rows(x, out, [](float a, float b) { return a + b; });
    }
    static void max_rows(const I (&x)[kRowLanes], std::int32_t* out) {
        join_rows(x, out, [](std::int32_t a, std::int32_t b) { return std::max(a, b); });
    }
    // Unsigned, here and below: what NaN became may be any integer, and overflow has to wrap.
    static void sum_rows(const I (&x)[kRowLanes], std::int32_t* out) {
        join_rows(x, out, [](std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a + b); });
    }
    // Walsh-Hadamard within the vector.
    static F rotate(F a) {
        const F b = {a[0] + a[1], a[0] - a[1], a[2] + a[3], a[2] - a[3]};
        return F{b[0] + b[2], b[1] + b[3], b[0] - b[2], b[1] - b[3]};
    }

    static F load_f16(const std::uint16_t* p) {
        return map<F>([&](int i) { return f16_to_float(p[i]); });
    }
    static F load_bf16(const std::uint16_t* p) {
        return map<F>([&](int i) { return std::bit_cast<float>(std::uint32_t{p[i]} << 16); });
    }
    static void store_f16(std::uint16_t* p, F a) {
        for (int i = 0; i < 4; ++i) p[i] = float_to_f16(a[i]);
    }
    static void store_bf16(std::uint16_t* p, F a) {
        for (int i = 0; i < 4; ++i) p[i] = float_to_bf16(a[i]);
    }

    static I load_int(const void* p) {
        I a;
        std::memcpy(&a, p, sizeof(a));
        return a;
    }
    static void store_int(void* p, I a) { std::memcpy(p, &a, sizeof(a)); }
    static I set1_int(std::int32_t a) { return I{a, a, a, a}; }
    static I add_int(I a, I b) { return bits_as<I>(bits_as<U4>(a) + bits_as<U4>(b)); }
    static I sub_int(I a, I b) { return bits_as<I>(bits_as<U4>(a) - bits_as<U4>(b)); }
    static I and_int(I a, I b) { return a & b; }
    static I max_int(I a, I b) {
        return map<I>([&](int i) { return std::max<std::int32_t>(a[i], b[i]); });
    }
    static F to_float(I a) {
        return map<F>([&](int i) { return static_cast<float>(a[i]); });
    }
    // |a| below 2^22
    static I to_int(F a) { return sub_int(bits_as<I>(a + set1(kRound)), set1_int(0x4b400000)); }

    static I broadcast(const std::byte* p) {
        std::int32_t a;
        std::memcpy(&a, p, 4);
        return set1_int(a);
    }
    static Acc start(I a) { return to_float(a); }
    static I finish(Acc a) {
        return map<I>([&](int i) { return static_cast<std::int32_t>(a[i]); });
    }
    static Acc dot(Acc acc, I a, I b) { return bits_as<F>(a) * bits_as<F>(b) + acc; }
    static void store_weight(std::byte* p, I a) { store_int(p, bits_as<I>(to_float(a))); }
};

}  // namespace

const KernelTable* scalar_kernels() {
    static const KernelTable table = {attend_fp32<Vec>, attend_int8<Vec>, Vec::kGroup,
                                      kPanel<Vec>,      load_row<Vec>,    store_row<Vec>,
                                      prepare_row<Vec>, rotate_row<Vec>,  quantise_row<Vec>};
    return &table;
}

}  // namespace paro::cpu
