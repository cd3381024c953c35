// What all targets share: a budget of time for an input, checks that end the program, and a file without a disk.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>

#include "paro/error.h"

namespace fuzz {

[[noreturn]] inline void broken(const char* what) {
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
}

inline void check(bool holds, const char* what) {
    if (!holds) broken(what);
}

// Of the processor, not of the clock on the wall: others may be at work on the machine.
inline double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Budget {
   public:
    Budget() : begun_(processor_seconds()) {}
    ~Budget() { check(processor_seconds() - begun_ <= 1.0, "an input took more than a second of processor time"); }
    Budget(const Budget&) = delete;
    Budget& operator=(const Budget&) = delete;

   private:
    double begun_;
};

// Runs `work`. False if it threw Error, which must say something that fits a window.
template <typename Work>
bool accepted(Work work) {
    try {
        work();
        return true;
    } catch (const paro::Error& error) {
        const std::string_view text = error.what();
        check(!text.empty() && text.size() < 1500, "an error must say something, and not a page of it");
        return false;
    }
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

// A regular file in memory, under a name that opens it anew.
class MemoryFile {
   public:
    MemoryFile() : handle_(memfd_create("paro-fuzz", MFD_CLOEXEC)) {
        check(handle_ >= 0, "a file in memory must be made");
    }
    ~MemoryFile() { close(handle_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    void hold(std::string_view bytes) {
        check(ftruncate(handle_, 0) == 0, "a file in memory must be emptied");
        check(pwrite(handle_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
              "a file in memory must be written");
    }
    std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(handle_); }

   private:
    int handle_;
};

// A folder in memory, the program's own; a crash leaves it.
inline const std::filesystem::path& folder() {
    struct Owned {
        std::filesystem::path path;
        Owned() {
            char name[] = "/dev/shm/paro-fuzz-XXXXXX";
            check(mkdtemp(name) != nullptr, "a folder in /dev/shm must be made");
            path = name;
        }
        ~Owned() {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    };
    static const Owned owned;
    return owned.path;
}

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
