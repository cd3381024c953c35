// The few instructions that C++ has no words for. All of them exist from sm_80 on.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace paro::cuda {

#if defined(PARO_EMULATE)
}  // namespace paro::cuda
#include "emulated_ptx.h"  // the same functions on a CPU (tests/cuda/emulator)
namespace paro::cuda {
#else
#define PARO_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// 8 or 16 bytes from shared memory, by their address there: pointers would be made into addresses each time.
template <class T>
__device__ __forceinline__ T load_shared(std::uint32_t address) {
    static_assert(sizeof(T) == 8 || sizeof(T) == 16);
    T value;
    if constexpr (sizeof(T) == 8) {
        asm volatile("ld.shared.u64 %0, [%1];"
                     : "=l"(reinterpret_cast<std::uint64_t&>(value))
                     : "r"(address)
                     : "memory");
    } else {
        auto& x = reinterpret_cast<uint4&>(value);
        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                     : "r"(address)
                     : "memory");
    }
    return value;
}

// 16 bytes from global to shared memory, past L1; complete after the next wait.
__device__ __forceinline__ void copy16_async(std::uint32_t to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// As above; zeros instead where `valid` is false.
__device__ __forceinline__ void copy16_async(std::uint32_t to, const void* from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy8_async(std::uint32_t to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of the newest groups are under way.
template <int pending>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four matrices of 8 rows x 16 bytes; lanes 8i .. 8i+7 name the rows of the i-th. A lane receives bytes 4 (lane % 4) ..
// of row lane / 4 of each.
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}
// The same with each matrix of 8 x 8 16-bit elements transposed.
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], std::uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address));
}

// d = c + a b over 32 bytes: a 16 x 32, b 32 x 8, c and d 16 x 8 in s32. c is a constant in every element, which costs
// no move where it stays in registers.
__device__ __forceinline__ void mma_s8_first(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1, std::int32_t c) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}
__device__ __forceinline__ void mma_s8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                       std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The same with unsigned a and b.
__device__ __forceinline__ void mma_u8_first(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1, std::int32_t c) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}
__device__ __forceinline__ void mma_u8(std::int32_t (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                       std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d += a b over 16 elements in bf16 or fp16, sums in fp32.
template <class T>
__device__ __forceinline__ void mma_half(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1);
template <>
__device__ __forceinline__ void mma_half<__nv_bfloat16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                        std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_half<__half>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                 std::uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum + 0 * pair, two of T each, in one instruction: NaN wherever pair was not finite.
template <class T>
__device__ __forceinline__ std::uint32_t note_broken(std::uint32_t pair, std::uint32_t sum);
template <>
__device__ __forceinline__ std::uint32_t note_broken<__nv_bfloat16>(std::uint32_t pair, std::uint32_t sum) {
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(0u));
    return sum;
}
template <>
__device__ __forceinline__ std::uint32_t note_broken<__half>(std::uint32_t pair, std::uint32_t sum) {
    asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(pair), "r"(0u));
    return sum;
}

// 2^x on the special-function unit, two units in the last place; -inf gives 0, NaN stays.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The greater; NaN where one is.
__device__ __forceinline__ float max_or_nan(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
// One instruction on sm_90.
__device__ __forceinline__ std::int32_t max_of_three(std::int32_t a, std::int32_t b, std::int32_t c) {
    return __vimax3_s32(a, b, c);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
// Four floats rounded to unsigned bytes and joined, a lowest; less than 0 gives 0, more than 255 gives 255. Two
// instructions, not on the special-function unit.
__device__ __forceinline__ std::uint32_t round_weights(float a, float b, float c, float d) {
    // The second of two goes lowest, and the third operand moves up: high halves first.
    std::uint32_t high, all;
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, 0;" : "=r"(high) : "r"(__float2int_rn(d)), "r"(__float2int_rn(c)));
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;"
        : "=r"(all)
        : "r"(__float2int_rn(b)), "r"(__float2int_rn(a)), "r"(high));
    return all;
}
#endif
#endif

// Adding it rounds |x| < 2^22 to the nearest integer, ties to even, which is then in the low mantissa bits. Sums that
// start from its bits are read as floats without a conversion.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
constexpr std::int32_t kRoundBits = 0x4b400000;

// Products of weights and values, both unsigned bytes, are less than 2^23: as floats subnormal numbers, sum 2^-149,
// which cost no conversion. The scales of v carry kScaleUp, so that what o gathers is normal again.
constexpr int kValueShift = 128;  // a value's byte is 128 more than it
constexpr float kScaleUp = 0x1p64f, kSumsUp = 0x1p85f, kShiftDown = kValueShift * 0x1p-64f;

// Low bytes of four words, a lowest.
__device__ __forceinline__ std::uint32_t join_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                                    std::uint32_t d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}
// Four floats rounded to integers, plus `shift`, and joined as bytes; |x| <= 255.
template <int shift = 0>
__device__ __forceinline__ std::uint32_t round_bytes(float a, float b, float c, float d) {
    constexpr float round = kRound + shift;
    return join_bytes(__float_as_uint(a + round), __float_as_uint(b + round), __float_as_uint(c + round),
                      __float_as_uint(d + round));
}

// Two pairs of fp16 numbers of 0 to 255, rounded and joined as bytes: adding 1024 rounds to integers.
__device__ __forceinline__ std::uint32_t round_halves(std::uint32_t ab, std::uint32_t cd) {
    const __half2 round = __half2half2(__ushort_as_half(0x6400));
    const __half2 low = __hadd2(*reinterpret_cast<const __half2*>(&ab), round);
    const __half2 high = __hadd2(*reinterpret_cast<const __half2*>(&cd), round);
    return __byte_perm(*reinterpret_cast<const std::uint32_t*>(&low), *reinterpret_cast<const std::uint32_t*>(&high),
                       0x6420);
}
__device__ __forceinline__ std::uint32_t to_halves(float low, float high) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
}
#if !defined(PARO_EMULATE) && !(defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890)
// Through fp16 where the conversion is one of the special-function unit; 0 <= x <= 255.
__device__ __forceinline__ std::uint32_t round_weights(float a, float b, float c, float d) {
    return round_halves(to_halves(a, b), to_halves(c, d));
}
#endif

}  // namespace paro::cuda
