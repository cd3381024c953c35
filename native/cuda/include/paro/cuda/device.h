// Which device launches go to.
#pragma once

namespace paro::cuda {

// Makes a device's primary context, which torch and the CUDA runtime use, current for its lifetime and this thread.
class CurrentDevice {
   public:
    // `ordinal`: as torch and the CUDA runtime count. Throws LaunchError.
    explicit CurrentDevice(int ordinal);
    ~CurrentDevice();
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

    // Compute capability, major * 10 + minor.
    int capability() const { return capability_; }

   private:
    int capability_ = 0;
    bool pushed_ = false;
};

}  // namespace paro::cuda
