// The functions of ptx.cuh on a CPU.
#pragma once

#include "emulated_launch.h"
#include "paro/error.h"

namespace paro::cuda {

inline std::uint32_t shared_address(const void* p) {
    return static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - emulator::dynamic_shared);
}
inline unsigned char* shared_pointer(std::uint32_t address, std::size_t bytes) {
    require(address % bytes == 0 && address + bytes <= emulator::kSharedBytes, "shared address",
            "must be aligned and inside", address);
    return emulator::dynamic_shared + address;
}
template <class T>
T load_shared(std::uint32_t address) {
    T value;
    std::memcpy(&value, shared_pointer(address, sizeof(T)), sizeof(T));
    return value;
}

inline void copy16_async(std::uint32_t to, const void* from, bool valid = true) {
    shared_pointer(to, 16);
    emulator::copy_async(to, valid ? from : nullptr, 16);
}
inline void copy8_async(std::uint32_t to, const void* from) {
    shared_pointer(to, 8);
    emulator::copy_async(to, from, 8);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int pending>
void wait_copies() {
    emulator::wait_copies(pending);
}

template <bool transposed>
void load_matrices_any(std::uint32_t (&r)[4], std::uint32_t address) {
    emulator::warp_operation(&address, 4, r, 16, [](const unsigned char(*in)[128], unsigned char(*out)[128]) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            for (int lane = 0; lane < 32; ++lane) {
                for (int i = 0; i < 2; ++i) {
                    const int row = transposed ? lane % 4 * 2 + i : lane / 4;
                    const int col = transposed ? lane / 4 : lane % 4 * 2 + i;
                    const auto line = emulator::read<std::uint32_t>(in[matrix * 8 + row]);
                    std::memcpy(out[lane] + matrix * 4 + i * 2, shared_pointer(line, 16) + col * 2, 2);
                }
            }
        }
    });
}
inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) { load_matrices_any<false>(r, address); }
inline void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
    load_matrices_any<true>(r, address);
}

template <class Sum>
struct Product {
    std::uint32_t a[4], b[2];
    Sum c[4];
};

// Elements of the fragments of one warp, `per` of them in 32 bits: a[row][k], b[k][col].
template <class Element, class Sum, class Widen>
void multiply(const unsigned char (*in)[128], unsigned char (*out)[128], Widen widen_a, Widen widen_b) {
    constexpr int per = 4 / sizeof(Element), depth = 8 * per;
    const auto element = [&](int lane, int offset, int word, int i) {
        return emulator::read<Element>(in[lane] + offset + word * 4 + i * static_cast<int>(sizeof(Element)));
    };
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            auto sum = emulator::read<Sum>(in[lane] + 24 + i * 4);
            for (int k = 0; k < depth; ++k) {
                const int half = k / (depth / 2), t = k % (depth / 2) / per, at = k % per;
                const auto a = element(row % 8 * 4 + t, 0, half * 2 + row / 8, at);
                const auto b = element(col * 4 + t, 16, half, at);
                sum += static_cast<Sum>(widen_a(a)) * static_cast<Sum>(widen_b(b));
            }
            std::memcpy(out[lane] + i * 4, &sum, 4);
        }
    }
}

template <bool is_signed>
void mma_int(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
             const std::int32_t (&c)[4]) {
    const Product<std::int32_t> in{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
    emulator::warp_operation(&in, sizeof(in), d, 16, [](const unsigned char(*x)[128], unsigned char(*y)[128]) {
        using Widen = std::int32_t (*)(std::uint8_t);
        const Widen as_signed = [](std::uint8_t v) -> std::int32_t { return static_cast<std::int8_t>(v); };
        const Widen as_unsigned = [](std::uint8_t v) -> std::int32_t { return v; };
        multiply<std::uint8_t, std::int32_t>(x, y, is_signed ? as_signed : as_unsigned,
                                             is_signed ? as_signed : as_unsigned);
    });
}
inline void mma_s8_first(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         std::int32_t c) {
    mma_int<true>(d, a, b0, b1, {c, c, c, c});
}
inline void mma_s8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    mma_int<true>(d, a, b0, b1, {d[0], d[1], d[2], d[3]});
}
inline void mma_u8_first(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         std::int32_t c) {
    mma_int<false>(d, a, b0, b1, {c, c, c, c});
}
inline void mma_u8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    mma_int<false>(d, a, b0, b1, {d[0], d[1], d[2], d[3]});
}
template <class T>
void mma_half(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    const Product<float> in{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
    emulator::warp_operation(&in, sizeof(in), d, 16, [](const unsigned char(*x)[128], unsigned char(*y)[128]) {
        using Widen = float (*)(T);
        const Widen widen = [](T v) -> float { return static_cast<float>(v); };
        multiply<T, float>(x, y, widen, widen);
    });
}

// On a GPU what is not finite becomes NaN by 0 * x; here the halves are looked at one by one.
template <class T>
std::uint32_t note_broken(std::uint32_t pair, std::uint32_t sum) {
    constexpr std::uint32_t nan = 0x7fff;
    for (int half = 0; half < 32; half += 16) {
        const auto bits = static_cast<std::uint16_t>(pair >> half);
        if (!std::isfinite(static_cast<float>(std::bit_cast<T>(bits)))) sum |= nan << half;
    }
    return sum;
}

inline float exp2_fast(float x) { return std::exp2(x); }
inline float max_or_nan(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }
inline std::uint32_t round_weights(float a, float b, float c, float d) {
    std::uint32_t all = 0;
    for (const float x : {d, c, b, a}) {
        const float near = std::nearbyint(x);
        all = all << 8 | (near > 0.0f ? static_cast<std::uint32_t>(std::min(near, 255.0f)) : 0u);
    }
    return all;
}
inline std::int32_t max_of_three(std::int32_t a, std::int32_t b, std::int32_t c) { return std::max({a, b, c}); }

}  // namespace paro::cuda
