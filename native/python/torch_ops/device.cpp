#include "device.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

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

DeviceScope::DeviceScope(std::int32_t device) : current_(device) {
    static const CurrentStream current_stream = find_current_stream();
    require(current_stream != nullptr, "torch", "must export aoti_torch_get_current_cuda_stream", "a build without it");
    require(current_stream(device, &stream_) == AOTI_TORCH_SUCCESS, "device", "must have a current stream", device);
}

}  // namespace paro::torch_ops
