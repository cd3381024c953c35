// Kernels by plain names: what a profiler shows, and what the host side launches (kernels.h). Their bodies are
// templates.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#if defined(PARO_EMULATE)
#include "emulated_kernel.h"  // the same macro on a CPU (tests/cuda/emulator)
#else
// The kernel `name`: `call` is what its threads do. Bounds and parameters come in parentheses.
#define PARO_KERNEL(name, bounds, parameters, ...) \
    extern "C" __global__ void __launch_bounds__ bounds name parameters { __VA_ARGS__; }
#endif

namespace paro::cuda {

// Element types as names of kernels have them.
using f32 = float;
using f16 = __half;
using bf16 = __nv_bfloat16;

}  // namespace paro::cuda
