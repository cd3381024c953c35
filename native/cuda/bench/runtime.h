// Errors of the CUDA runtime, which the benchmark uses beside the kernels' own launches.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace paro::cuda::bench {

// Throws std::runtime_error with `what` unless `code` is cudaSuccess.
inline void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    cudaGetLastError();  // what is not sticky must not meet the next call
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(code));
}

}  // namespace paro::cuda::bench
