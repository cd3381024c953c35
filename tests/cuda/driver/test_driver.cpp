// Launches through drivers that are none (stub_driver.c): what they are asked, and what is said where they fail. A
// process loads one driver, so each case is a process of its own.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "paro/cuda/device.h"
#include "paro/cuda/launch.h"

namespace paro::cuda {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

// What `work` returns, or the text of the LaunchError that leaves it, in a process with this driver.
std::string in_process(const char* driver, const char* mode, const std::function<std::string()>& work) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
        setenv("PARO_CUDA_DRIVER", driver, 1);
        setenv("PARO_STUB", mode, 1);
        std::string text;
        try {
            text = work();
        } catch (const LaunchError& error) {
            text = std::string(error.out_of_memory() ? "memory! " : "") + error.what();
        }
        const bool written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
        _exit(written ? 0 : 1);
    }
    close(ends[1]);
    std::string found;
    char buffer[4096];
    for (ssize_t count; (count = read(ends[0], buffer, sizeof(buffer))) > 0;) {
        found.append(buffer, static_cast<std::size_t>(count));
    }
    close(ends[0]);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    return found;
}

// Places that nothing reads: the drivers here run no kernel.
AttentionParams call() {
    AttentionParams p{};
    p.dtype = DType::bf16;
    p.precision = Precision::int8;
    p.batch = 1, p.heads = 2, p.head_dim = 128;
    p.sm_scale = 0.1f;
    p.tail = 1;
    set_sizes(p, {0, {4, 8, 8}, 0, 128, 64});
    place_queries(p, reinterpret_cast<void*>(1 << 20));
    place_keys(p, reinterpret_cast<void*>(1 << 24));
    return p;
}

std::string log_of_driver() {
    void* driver = dlopen(PARO_STUB_DRIVER, RTLD_NOW | RTLD_NOLOAD);
    return driver ? static_cast<const char*>(dlsym(driver, "stub_log")) : "no driver was loaded";
}

std::string attend() {
    const CurrentDevice device(1);
    launch_pack_int8(call(), reinterpret_cast<Stream>(7));
    launch_attention(call(), Path::hopper, reinterpret_cast<Stream>(7));
    return log_of_driver();
}

}  // namespace

TEST_CASE("a call's launches reach the driver, in their order, on the device and stream asked for") {
    CHECK(in_process(PARO_STUB_DRIVER, "", attend) ==
          "set 12 bytes to 0\n"
          "load\n"
          "launch paro_pack_queries_bf16_d128: 10 x 256, 0 bytes, stream 7, device 1\n"
          "launch paro_pack_keys_bf16_d128_k64: 8 x 256, 0 bytes, stream 7, device 1\n"
          "launch paro_pack_pooled_d128_k64: 2 x 256, 0 bytes, stream 7, device 1\n"
          "set 4 bytes to 0\n"
          "load\n"
          "grant 8 on 1: 199088 to paro_attention_hopper_int8_d128_q128_k64\n"
          "launch paro_attention_hopper_int8_d128_q128_k64: 4 x 384, 199088 bytes, stream 7, device 1\n");
}

TEST_CASE("images are loaded and shared memory is granted once, whatever threads launch") {
    const std::string log = in_process(PARO_STUB_DRIVER, "", [] {
        const auto work = [] {
            const CurrentDevice device(0);
            for (int i = 0; i < 20; ++i) launch_attention(call(), Path::hopper, nullptr);
        };
        std::thread first(work), second(work);
        first.join(), second.join();
        return log_of_driver();
    });
    const auto count = [&](const std::string& what) {
        int found = 0;
        for (std::size_t at = 0; (at = log.find(what, at)) != std::string::npos; ++at) ++found;
        return found;
    };
    CHECK(count("load\n") == 1);
    CHECK(count("grant ") == 1);
}

TEST_CASE("a device is current for as long as its scope") {
    CHECK(in_process(PARO_STUB_DRIVER, "",
                     [] {
                         const CurrentDevice outer(2);
                         { const CurrentDevice inner(3); }
                         const CurrentDevice same(2);
                         launch_attention(call(), Path::hopper, nullptr);
                         return std::to_string(outer.capability()) + " " + log_of_driver();
                     }) ==
          "90 set 4 bytes to 0\nload\n"
          "grant 8 on 2: 199088 to paro_attention_hopper_int8_d128_q128_k64\n"
          "launch paro_attention_hopper_int8_d128_q128_k64: 4 x 384, 199088 bytes, stream 0, device 2\n");
}

TEST_CASE("without a driver, with an old one, without a GPU: the text says so and what to do") {
    CHECK_THAT(in_process("/nowhere/libcuda.so.1", "", attend),
               StartsWith("no NVIDIA driver: /nowhere/libcuda.so.1 cannot be loaded"));
    CHECK_THAT(in_process(PARO_STUB_DRIVER, "old", attend),
               StartsWith("the NVIDIA driver is too old: it knows CUDA 11.8: update the NVIDIA driver to "));
    CHECK_THAT(in_process(PARO_STUB_DRIVER_LACKING, "", attend),
               ContainsSubstring("lacks cuLibraryLoadData: update the NVIDIA driver to "));
    CHECK(in_process(PARO_STUB_DRIVER, "no device", attend) ==
          "the NVIDIA driver does not start: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE)");
}

TEST_CASE("a kernel that cannot be loaded: the text names it, and memory is told apart") {
    CHECK(in_process(PARO_STUB_DRIVER, "no memory", attend) ==
          "memory! paro_pack_queries_bf16_d128: out of memory (CUDA_ERROR_OUT_OF_MEMORY)");
    CHECK_THAT(in_process(PARO_STUB_DRIVER, "no binary", attend),
               StartsWith("paro_pack_queries_bf16_d128: no kernel image is available for execution on the device "
                          "(CUDA_ERROR_NO_BINARY_FOR_GPU): this library holds code for sm_"));
}

TEST_CASE("a failure stays one in later calls, and does not end the process") {
    CHECK_THAT(in_process("/nowhere/libcuda.so.1", "",
                          [] {
                              try {
                                  attend();
                              } catch (const LaunchError&) {
                              }
                              return attend();
                          }),
               StartsWith("no NVIDIA driver"));
}

}  // namespace paro::cuda
