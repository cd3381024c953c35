// Devices, and what host code does with their memory.
#include "paro/cuda/device.h"

#include <atomic>
#include <cstdint>

#include "driver/driver.h"
#include "launch_kernel.h"
#include "paro/cuda/launch.h"

namespace paro::cuda {
namespace {

struct Attributes {
    int capability = 0, multiprocessors = 0, shared_memory = 0;
};

Attributes ask_attributes(driver::Device device) {
    const auto ask = [=](int which) {
        int value = 0;
        driver::check(driver::functions().cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
        return value;
    };
    return {ask(driver::kCapabilityMajor) * 10 + ask(driver::kCapabilityMinor), ask(driver::kMultiprocessorCount),
            ask(driver::kSharedMemoryPerMultiprocessor)};
}

// Asked once a device.
Attributes attributes(driver::Device device) {
    constexpr int most = 64;
    static std::atomic<const Attributes*> known[most];
    if (device < 0 || device >= most) return ask_attributes(device);
    const Attributes* found = known[device].load(std::memory_order_acquire);
    if (found) return *found;
    // Two threads may ask at once; what the slower finds is let go.
    auto* fresh = new Attributes(ask_attributes(device));
    if (known[device].compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
    return *found;
}

Attributes current_attributes() {
    driver::Device device = 0;
    driver::check(driver::functions().cuCtxGetDevice(&device), "cuCtxGetDevice");
    return attributes(device);
}

driver::Address address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

}  // namespace

CurrentDevice::CurrentDevice(int ordinal) {
    const driver::Functions& cuda = driver::functions();
    driver::Device device = 0, current = 0;
    driver::check(cuda.cuDeviceGet(&device, ordinal), "cuDeviceGet");
    capability_ = attributes(device).capability;
    // Without a context the question fails.
    if (cuda.cuCtxGetDevice(&current) == driver::kSuccess && current == device) return;
    // Never released: torch holds it as long as the process lasts.
    driver::Context context = nullptr;
    driver::check(cuda.cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    driver::check(cuda.cuCtxPushCurrent(context), "cuCtxPushCurrent");
    pushed_ = true;
}

CurrentDevice::~CurrentDevice() {
    driver::Context context = nullptr;
    if (pushed_) driver::functions().cuCtxPopCurrent(&context);
}

int multiprocessors() { return current_attributes().multiprocessors; }
int shared_memory_limit() { return current_attributes().shared_memory; }

void fill_zeros(void* to, std::size_t bytes, Stream stream) {
    driver::check(driver::functions().cuMemsetD8Async(address(to), 0, bytes, stream), "cuMemsetD8Async");
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
    driver::check(driver::functions().cuMemcpyDtoDAsync(address(to), address(from), bytes, stream),
                  "cuMemcpyDtoDAsync");
}

}  // namespace paro::cuda
