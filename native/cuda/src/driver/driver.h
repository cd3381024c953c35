// The CUDA driver, found in the system when it is first needed: nothing of CUDA is linked. Declared here as far as it
// is used (tests/cuda/emulator/test_driver_declarations.cpp holds this against the toolkit's cuda.h).
#pragma once

#include <cstddef>

#include "paro/cuda/params.h"

namespace paro::cuda::driver {

using Result = int;  // CUresult
using Device = int;  // CUdevice
using Context = void*;
using Library = void*;
using Function = void*;  // CUkernel or CUfunction
using Address = unsigned long long;

constexpr Result kSuccess = 0, kOutOfMemory = 2, kNoBinaryForGpu = 209, kUnsupportedPtxVersion = 222;
constexpr int kMultiprocessorCount = 16, kCapabilityMajor = 75, kCapabilityMinor = 76,
              kSharedMemoryPerMultiprocessor = 81;
constexpr int kMaxDynamicSharedBytes = 8;

// X(name here, exported name, parameters): exported names carry the version whose parameters these are.
#define PARO_DRIVER_FUNCTIONS(X)                                                                                    \
    X(cuInit, "cuInit", (unsigned flags))                                                                           \
    X(cuDriverGetVersion, "cuDriverGetVersion", (int* version))                                                     \
    X(cuGetErrorName, "cuGetErrorName", (Result error, const char** name))                                          \
    X(cuGetErrorString, "cuGetErrorString", (Result error, const char** text))                                      \
    X(cuDeviceGet, "cuDeviceGet", (Device * device, int ordinal))                                                   \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int* value, int attribute, Device device))                     \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (Context * context, Device device))                     \
    X(cuCtxGetDevice, "cuCtxGetDevice", (Device * device))                                                          \
    X(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (Context context))                                                   \
    X(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (Context * context))                                                   \
    X(cuLibraryLoadData, "cuLibraryLoadData",                                                                       \
      (Library * library, const void* image, int* jit_options, void** jit_values, unsigned jit_count, int* options, \
       void** values, unsigned count))                                                                              \
    X(cuLibraryGetKernel, "cuLibraryGetKernel", (Function * kernel, Library library, const char* name))             \
    X(cuKernelSetAttribute, "cuKernelSetAttribute", (int attribute, int value, Function kernel, Device device))     \
    X(cuLaunchKernel, "cuLaunchKernel",                                                                             \
      (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,    \
       unsigned block_z, unsigned shared_bytes, Stream stream, void** arguments, void** extra))                     \
    X(cuMemsetD8Async, "cuMemsetD8Async", (Address to, unsigned char value, std::size_t bytes, Stream stream))      \
    X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (Address to, Address from, std::size_t bytes, Stream stream))

struct Functions {
#define PARO_DECLARE(name, exported, parameters) Result(*name) parameters = nullptr;
    PARO_DRIVER_FUNCTIONS(PARO_DECLARE)
#undef PARO_DECLARE
};

// The driver's functions, cuInit called. The first call loads libcuda.so.1 or nvcuda.dll, or the file that the
// environment variable PARO_CUDA_DRIVER names. Throws LaunchError, in every later call too, where there is no driver,
// where it is too old, where it lacks a function, and where it finds no device.
const Functions& functions();

// Throws LaunchError with `what`, the driver's words and `more` unless `result` is kSuccess.
void check(Result result, const char* what, const char* more = "");

}  // namespace paro::cuda::driver
