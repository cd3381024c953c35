// The device and stream that torch would use.
#pragma once

#include <cstdint>

#include "paro/cuda/device.h"
#include "paro/cuda/params.h"

namespace paro::torch_ops {

// Makes a device current for its lifetime.
class DeviceScope {
   public:
    explicit DeviceScope(std::int32_t device);

    // torch's current one.
    cuda::Stream stream() const { return stream_; }
    // major * 10 + minor
    int capability() const { return current_.capability(); }

   private:
    cuda::CurrentDevice current_;
    cuda::Stream stream_ = nullptr;
};

}  // namespace paro::torch_ops
