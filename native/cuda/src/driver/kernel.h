// Compiled device code inside this library, and its kernels. Objects of both are generated (embed_kernels.py).
#pragma once

#include <atomic>

#include "paro/cuda/params.h"

namespace paro::cuda {

// A fat binary: code of the same kernels for several GPUs. Given to the driver once a process, when one of its kernels
// is first launched.
class DeviceImage {
   public:
    // `architectures`: what it holds, in words.
    constexpr DeviceImage(const void* bytes, const char* architectures)
        : bytes_(bytes), architectures_(architectures) {}
    DeviceImage(const DeviceImage&) = delete;
    DeviceImage& operator=(const DeviceImage&) = delete;

   private:
    friend class Kernel;
    const void* bytes_;
    const char* architectures_;
    void* library_ = nullptr;  // CUlibrary, under the lock of Kernel::load
};

// One kernel of an image, for all devices of the process. Any thread may launch.
class Kernel {
   public:
    constexpr Kernel(DeviceImage& image, const char* name, int parameter_bytes)
        : image_(image), name_(name), parameter_bytes_(parameter_bytes) {}
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;

    const char* name() const { return name_; }
    int parameter_bytes() const { return parameter_bytes_; }
    // In the current context; `arguments` points to the parameters. Throws LaunchError.
    void launch(unsigned grid, unsigned threads, unsigned shared_bytes, Stream stream, void** arguments);

   private:
    static constexpr int kDevices = 16;  // whose granted bytes are remembered
    void* load();
    void grant_shared(void* function, int bytes);
    void check(int result) const;

    DeviceImage& image_;
    const char* name_;
    int parameter_bytes_;
    std::atomic<void*> function_{nullptr};
    std::atomic<int> granted_[kDevices]{};  // dynamic shared memory that the driver was asked to allow
};

}  // namespace paro::cuda
