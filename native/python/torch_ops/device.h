// The device and stream that torch would use.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace paro::torch_ops {

// Makes a device current for its lifetime, for torch and for the CUDA runtime linked into this library.
class DeviceScope {
   public:
    explicit DeviceScope(std::int32_t device);
    ~DeviceScope();
    DeviceScope(const DeviceScope&) = delete;
    DeviceScope& operator=(const DeviceScope&) = delete;

    cudaStream_t stream() const { return stream_; }
    // major * 10 + minor
    int capability() const { return capability_; }

   private:
    int before_ = 0, capability_ = 0;
    cudaStream_t stream_ = nullptr;
};

}  // namespace paro::torch_ops
