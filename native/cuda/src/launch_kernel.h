// What every launch goes through: sizes checked, errors thrown with the kernel's name.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "paro/cuda/launch.h"
#include "paro/error.h"

#if defined(PARO_EMULATE)
#include "emulated_launch.h"  // the same functions on a CPU (tests/cuda/emulator)
#else
#include <cuda_runtime.h>

namespace paro::cuda {

// Of the current device.
inline int device_attribute(cudaDeviceAttr which) {
    int device = 0, value = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
// Bytes of shared memory of a multiprocessor.
inline int shared_memory_limit() { return device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor); }

template <class... P>
void launch_kernel(const char* name, void (*kernel)(P...), std::int64_t grid, int threads, int shared_bytes,
                   cudaStream_t stream, const std::type_identity_t<std::remove_const_t<P> >&... args) {
    require(grid > 0 && grid <= std::numeric_limits<std::int32_t>::max(), "grid", "must be 1 to 2^31 - 1 CTAs", grid);
    // 48 KB without asking hold a kernel's static shared memory too.
    if (shared_bytes > 32 << 10) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name);
    }
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(grid));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
    config.stream = stream;
    check(cudaLaunchKernelEx(&config, kernel, args...), name);
}

}  // namespace paro::cuda
#endif
