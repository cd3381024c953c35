#include "device.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "paro/cuda/launch.h"
#include "paro/error.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace paro::torch_ops {
namespace {

using CurrentStream = AOTITorchError (*)(std::int32_t, void**);

// Torch's CUDA half is not linked, so that the library loads where torch has none; whoever holds a CUDA tensor has it
// loaded already.
CurrentStream find_current_stream() {
    constexpr const char* name = "aoti_torch_get_current_cuda_stream";
#if defined(_WIN32)
    const HMODULE torch = GetModuleHandleA("torch_cuda.dll");
    return torch ? reinterpret_cast<CurrentStream>(reinterpret_cast<void*>(GetProcAddress(torch, name))) : nullptr;
#else
    void* torch = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* found = torch ? dlsym(torch, name) : dlsym(RTLD_DEFAULT, name);
    return reinterpret_cast<CurrentStream>(found);
#endif
}

}  // namespace

DeviceScope::DeviceScope(std::int32_t device) {
    static const CurrentStream current_stream = find_current_stream();
    require(current_stream != nullptr, "torch", "must export aoti_torch_get_current_cuda_stream", "a build without it");
    void* stream = nullptr;
    require(current_stream(device, &stream) == AOTI_TORCH_SUCCESS, "device", "must have a current stream", device);
    stream_ = static_cast<cudaStream_t>(stream);
    int major = 0, minor = 0;
    cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
    cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
    capability_ = major * 10 + minor;
    cuda::check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) cuda::check(cudaSetDevice(device), "cudaSetDevice");
    if (before_ == device) before_ = -1;
}

DeviceScope::~DeviceScope() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace paro::torch_ops
