// Plain C++: any processor. Vectors of four floats as arrays, which compilers turn into SSE2 or NEON.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "attention_kernels_fp32.h"
#include "attention_kernels_int8.h"

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

// Wraps as the processors do: what NaN became may be any integer.
std::int32_t wrap_add(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

struct Vec {
    struct F {
        float x[4];
    };
    struct I {
        std::int32_t x[4];
    };
    static constexpr int W = 4, NV = 2, kGroup = 2;

    template <class Op>
    static F map(Op op) {
        return {op(0), op(1), op(2), op(3)};
    }
    template <class Op>
    static I map_int(Op op) {
        return {op(0), op(1), op(2), op(3)};
    }

    static F load(const float* p) {
        return map([&](int i) { return p[i]; });
    }
    static void store(float* p, F a) { std::copy(a.x, a.x + 4, p); }
    static F set1(float a) { return {a, a, a, a}; }
    static F add(F a, F b) {
        return map([&](int i) { return a.x[i] + b.x[i]; });
    }
    static F sub(F a, F b) {
        return map([&](int i) { return a.x[i] - b.x[i]; });
    }
    static F mul(F a, F b) {
        return map([&](int i) { return a.x[i] * b.x[i]; });
    }
    static F fma(F a, F b, F c) {
        return map([&](int i) { return a.x[i] * b.x[i] + c.x[i]; });
    }
    // As the processors have it: the second if either is NaN.
    static F max(F a, F b) {
        return map([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
    }
    static F min(F a, F b) {
        return map([&](int i) { return a.x[i] < b.x[i] ? a.x[i] : b.x[i]; });
    }
    static F abs(F a) {
        return map([&](int i) { return std::fabs(a.x[i]); });
    }
    static float hmax(F a) { return std::max(std::max(a.x[0], a.x[2]), std::max(a.x[1], a.x[3])); }
    static float hsum(F a) { return (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]); }
    // x = r + n, n an integer, |r| <= 1/2; p 2^n for x above -126.
    static constexpr bool kAnyExponent = false;
    static F split(F x, F& r) {
        const F t = add(x, set1(kRound));
        r = sub(x, sub(t, set1(kRound)));
        return t;
    }
    static F scale(F p, F t) {
        return map([&](int i) {
            return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p.x[i]) +
                                        (std::bit_cast<std::uint32_t>(t.x[i]) << 23));
        });
    }
    template <class Row, class T, class Op>
    static void join_rows(const Row (&x)[kRowLanes], T* out, Op op) {
        for (int r = 0; r < kRowLanes; ++r) out[r] = op(op(x[r].x[0], x[r].x[1]), op(x[r].x[2], x[r].x[3]));
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
    static void sum_rows(const I (&x)[kRowLanes], std::int32_t* out) { join_rows(x, out, wrap_add); }
    static F zero_below(F y, F x, F floor) {
        return map([&](int i) { return x.x[i] < floor.x[i] ? 0.0f : y.x[i]; });
    }

    // Walsh-Hadamard within the vector.
    static F rotate(F a) {
        const F b = {a.x[0] + a.x[1], a.x[0] - a.x[1], a.x[2] + a.x[3], a.x[2] - a.x[3]};
        return {b.x[0] + b.x[2], b.x[1] + b.x[3], b.x[0] - b.x[2], b.x[1] - b.x[3]};
    }

    static F load_f16(const std::uint16_t* p) {
        return map([&](int i) { return f16_to_float(p[i]); });
    }
    static F load_bf16(const std::uint16_t* p) {
        return map([&](int i) { return std::bit_cast<float>(std::uint32_t{p[i]} << 16); });
    }
    static void store_f16(std::uint16_t* p, F a) {
        for (int i = 0; i < 4; ++i) p[i] = float_to_f16(a.x[i]);
    }
    static void store_bf16(std::uint16_t* p, F a) {
        for (int i = 0; i < 4; ++i) p[i] = float_to_bf16(a.x[i]);
    }

    // |a| below 2^22
    static I to_int(F a) {
        return map_int([&](int i) { return wrap_add(std::bit_cast<std::int32_t>(a.x[i] + kRound), -0x4b400000); });
    }
    static I set1_int(std::int32_t a) { return {a, a, a, a}; }
    static I add_int(I a, I b) {
        return map_int([&](int i) { return wrap_add(a.x[i], b.x[i]); });
    }
    static I load_int(const void* p) {
        I a;
        std::memcpy(a.x, p, sizeof(a.x));
        return a;
    }
    static void store_int(void* p, I a) { std::memcpy(p, a.x, sizeof(a.x)); }
    static I broadcast(const std::byte* p) {
        std::int32_t a;
        std::memcpy(&a, p, 4);
        return set1_int(a);
    }
    static I sub_int(I a, I b) {
        return map_int([&](int i) { return wrap_add(a.x[i], -b.x[i]); });
    }
    static I and_int(I a, I b) {
        return map_int([&](int i) { return a.x[i] & b.x[i]; });
    }
    static I max_int(I a, I b) {
        return map_int([&](int i) { return std::max(a.x[i], b.x[i]); });
    }
    static F to_float(I a) {
        return map([&](int i) { return static_cast<float>(a.x[i]); });
    }
    // Two 16-bit integers a word.
    static I dot(I acc, I a, I b) {
        return map_int([&](int i) {
            return acc.x[i] + static_cast<std::int16_t>(a.x[i]) * static_cast<std::int16_t>(b.x[i]) +
                   (a.x[i] >> 16) * (b.x[i] >> 16);
        });
    }
    static void store_weight(std::byte* p, I a) { store_int16(reinterpret_cast<std::int16_t*>(p), a); }
    static void store_int16(std::int16_t* p, I a) {
        for (int i = 0; i < 4; ++i) p[i] = static_cast<std::int16_t>(a.x[i]);
    }
};

}  // namespace

const KernelTable* scalar_kernels() {
    static const KernelTable table = {attend_fp32<Vec>, attend_int8<Vec>, Vec::kGroup,
                                      kPanel<Vec>,      load_row<Vec>,    store_row<Vec>,
                                      prepare_row<Vec>, rotate_row<Vec>,  quantise_row<Vec>};
    return &table;
}

}  // namespace paro::cpu
