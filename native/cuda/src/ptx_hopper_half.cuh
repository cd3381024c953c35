// wgmma in bf16 and fp16, for sm_90a. As ptx_hopper.cuh: callers stand under PARO_SM90A.
#pragma once

#include "ptx_hopper.cuh"

#if defined(PARO_EMULATE)
#include "emulated_hopper_half.h"  // the same function on a CPU (tests/cuda/emulator)
#elif defined(PARO_SM90A)

namespace paro::cuda {

// d (+)= a b^T over 16 elements: a 64 x 16 from registers, as m16n8k16 has it, a warp 16 rows; b 64 x 16 in shared
// memory. Accumulators as wgmma_ss.
#define PARO_WGMMA_HALF(TYPE)                                                                                      \
    asm volatile(                                                                                                  \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                                               \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                                \
        " {"                                                                                                       \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "               \
        "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"                                               \
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"                                                             \
        : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), \
          "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]), "+f"(d[3][0]), "+f"(d[3][1]), \
          "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), \
          "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]), "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), \
          "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])                                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)))

template <class T>
__device__ __forceinline__ void wgmma_half_rs(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b,
                                              bool accumulate);
template <>
__device__ __forceinline__ void wgmma_half_rs<__nv_bfloat16>(float (&d)[8][4], const std::uint32_t (&a)[4],
                                                             std::uint64_t b, bool accumulate) {
    PARO_WGMMA_HALF("bf16");
}
template <>
__device__ __forceinline__ void wgmma_half_rs<__half>(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b,
                                                      bool accumulate) {
    PARO_WGMMA_HALF("f16");
}
#undef PARO_WGMMA_HALF

}  // namespace paro::cuda
#endif
