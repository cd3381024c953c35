#include "driver/driver.h"

#include <cstdlib>
#include <string>

#include "paro/cuda/launch.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace paro::cuda::driver {
namespace {

// Cubins run on every driver of their toolkit's major version.
constexpr int kNeededVersion = PARO_CUDA_VERSION / 1000 * 1000;
#if defined(_WIN32)
constexpr const char* kDefaultFile = "nvcuda.dll";
constexpr const char* kNeededDriver = kNeededVersion >= 13000 ? "580" : "528";
#else
constexpr const char* kDefaultFile = "libcuda.so.1";
constexpr const char* kNeededDriver = kNeededVersion >= 13000 ? "580" : "525";
#endif

void* open_file(const char* file) {
#if defined(_WIN32)
    // From the system's folder alone, unless a whole path was given.
    const bool own = file == kDefaultFile;
    return reinterpret_cast<void*>(LoadLibraryExA(file, nullptr, own ? LOAD_LIBRARY_SEARCH_SYSTEM32 : 0));
#else
    return dlopen(file, RTLD_NOW | RTLD_LOCAL);
#endif
}

void* find_function(void* library, const char* name) {
#if defined(_WIN32)
    return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
#else
    return dlsym(library, name);
#endif
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string update_text() {
    return std::string("update the NVIDIA driver to ") + kNeededDriver + " or newer (CUDA " +
           version_text(kNeededVersion) + ")";
}

// What the driver says of an error.
std::string error_text(const Functions& all, Result result) {
    const char *name = nullptr, *text = nullptr;
    if (all.cuGetErrorName) all.cuGetErrorName(result, &name);
    if (all.cuGetErrorString) all.cuGetErrorString(result, &text);
    return std::string(text ? text : "unknown error") + " (" + (name ? name : "code " + std::to_string(result)) + ")";
}

struct Loaded {
    Functions functions;
    std::string fault;  // empty: all is well
    Loaded() : fault(load()) {}

    std::string load() {
        const char* chosen = std::getenv("PARO_CUDA_DRIVER");
        const char* file = chosen && *chosen ? chosen : kDefaultFile;
        void* library = open_file(file);
        if (!library) return std::string("no NVIDIA driver: ") + file + " cannot be loaded: install the NVIDIA driver";
        const char* missing = nullptr;
#define PARO_FIND(name, exported, parameters)                                                      \
    functions.name = reinterpret_cast<decltype(functions.name)>(find_function(library, exported)); \
    if (!functions.name && !missing) missing = exported;
        PARO_DRIVER_FUNCTIONS(PARO_FIND)
#undef PARO_FIND
        int version = 0;
        if (functions.cuDriverGetVersion && functions.cuDriverGetVersion(&version) == kSuccess &&
            version < kNeededVersion) {
            return "the NVIDIA driver is too old: it knows CUDA " + version_text(version) + ": " + update_text();
        }
        if (missing) return std::string("the NVIDIA driver (") + file + ") lacks " + missing + ": " + update_text();
        const Result result = functions.cuInit(0);
        return result == kSuccess ? "" : "the NVIDIA driver does not start: " + error_text(functions, result);
    }
};

// Never destroyed: other threads may launch while the process ends.
const Loaded& loaded() {
    static const Loaded& only = *new Loaded;
    return only;
}

}  // namespace

const Functions& functions() {
    const Loaded& all = loaded();
    if (!all.fault.empty()) throw LaunchError(all.fault, false);
    return all.functions;
}

void check(Result result, const char* what, const char* more) {
    if (result == kSuccess) return;
    throw LaunchError(std::string(what) + ": " + error_text(loaded().functions, result) + more, result == kOutOfMemory);
}

}  // namespace paro::cuda::driver
