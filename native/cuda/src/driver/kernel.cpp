#include "driver/kernel.h"

#include <mutex>
#include <string>

#include "driver/driver.h"

namespace paro::cuda {
namespace {

// Of everything that is done once a process or once a device.
std::mutex& setup_lock() {
    static std::mutex& only = *new std::mutex;
    return only;
}

// 48 KB without asking hold a kernel's static shared memory too.
constexpr unsigned kAlwaysGranted = 32 << 10;

}  // namespace

void Kernel::check(int result) const {
    if (result == driver::kSuccess) return;
    std::string more;
    if (result == driver::kNoBinaryForGpu || result == driver::kUnsupportedPtxVersion) {
        more = std::string(": this library holds code for ") + image_.architectures_;
    }
    driver::check(result, name_, more.c_str());
}

void* Kernel::load() {
    const driver::Functions& cuda = driver::functions();
    const std::scoped_lock lock(setup_lock());
    if (!image_.library_) {
        check(cuda.cuLibraryLoadData(&image_.library_, image_.bytes_, nullptr, nullptr, 0, nullptr, nullptr, 0));
    }
    void* function = nullptr;
    check(cuda.cuLibraryGetKernel(&function, image_.library_, name_));
    function_.store(function, std::memory_order_release);
    return function;
}

void Kernel::grant_shared(void* function, int bytes) {
    const driver::Functions& cuda = driver::functions();
    driver::Device device = 0;
    check(cuda.cuCtxGetDevice(&device));
    const bool known = device >= 0 && device < kDevices;
    if (known && granted_[device].load(std::memory_order_acquire) >= bytes) return;
    const std::scoped_lock lock(setup_lock());
    // Never back to less: another thread may be about to launch with what it was granted.
    if (known && granted_[device].load(std::memory_order_relaxed) >= bytes) return;
    check(cuda.cuKernelSetAttribute(driver::kMaxDynamicSharedBytes, bytes, function, device));
    if (known) granted_[device].store(bytes, std::memory_order_release);
}

void Kernel::launch(unsigned grid, unsigned threads, unsigned shared_bytes, Stream stream, void** arguments) {
    void* function = function_.load(std::memory_order_acquire);
    if (!function) function = load();
    if (shared_bytes > kAlwaysGranted) grant_shared(function, static_cast<int>(shared_bytes));
    check(driver::functions().cuLaunchKernel(function, grid, 1, 1, threads, 1, 1, shared_bytes, stream, arguments,
                                             nullptr));
}

}  // namespace paro::cuda
