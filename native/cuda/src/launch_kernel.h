// What every launch goes through: sizes checked, errors thrown with the kernel's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "cta_shapes.h"
#include "paro/cuda/params.h"
#include "paro/error.h"

#if defined(PARO_EMULATE)
#include "emulated_kernel.h"  // class Kernel on a CPU (tests/cuda/emulator)
#else
#include "driver/kernel.h"
#endif

namespace paro::cuda {

// Of the current device.
int multiprocessors();
// Bytes of shared memory of a multiprocessor.
int shared_memory_limit();
// Zeros in device memory, in the stream's turn.
void fill_zeros(void* to, std::size_t bytes, Stream stream);

// `args`: of the very types that the kernel was compiled with.
template <class... P>
void launch_kernel(Kernel& kernel, std::int64_t grid, int threads, int shared_bytes, Stream stream, const P&... args) {
    require(grid > 0 && grid <= std::numeric_limits<std::int32_t>::max(), "grid", "must be 1 to 2^31 - 1 CTAs", grid);
    require(kernel.parameter_bytes() == parameter_bytes<P...>(), kernel.name(),
            "must be given the parameters that it was compiled with, " + std::to_string(kernel.parameter_bytes()) +
                " bytes: the library's two halves are of different builds",
            parameter_bytes<P...>());
    const void* const arguments[] = {&args...};
    kernel.launch(static_cast<unsigned>(grid), static_cast<unsigned>(threads), static_cast<unsigned>(shared_bytes),
                  stream, const_cast<void**>(arguments));
}

}  // namespace paro::cuda
