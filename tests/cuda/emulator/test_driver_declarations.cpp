// What driver.h declares by itself against the toolkit's cuda.h.
#include <cuda.h>

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <type_traits>

#include "driver/driver.h"

namespace paro::cuda::driver {
namespace {

// Enumerations and handles are ints and pointers at a call.
template <class Ours, class Theirs>
constexpr bool same_at_a_call() {
    if constexpr (std::is_pointer_v<Ours> || std::is_pointer_v<Theirs>) {
        return std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>;
    } else {
        return sizeof(Ours) == sizeof(Theirs) && !std::is_floating_point_v<Theirs>;
    }
}
template <class... Ours, class... Theirs>
constexpr bool same(Result (*)(Ours...), CUresult (*)(Theirs...)) {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs)) {
        return (same_at_a_call<Ours, Theirs>() && ...);
    } else {
        return false;
    }
}

// cuda.h renames functions to their newest versions.
#define PARO_TEXT(x) PARO_TEXT_OF(x)
#define PARO_TEXT_OF(x) #x

}  // namespace

TEST_CASE("the driver's functions are declared as cuda.h declares them") {
#define PARO_CHECK(name, exported, parameters)                                        \
    STATIC_REQUIRE(same(static_cast<decltype(Functions::name)>(nullptr),              \
                        static_cast<std::add_pointer_t<decltype(::name)>>(nullptr))); \
    CHECK(std::string(exported) == PARO_TEXT(name));
    PARO_DRIVER_FUNCTIONS(PARO_CHECK)
}

TEST_CASE("the driver's numbers are those of cuda.h") {
    STATIC_REQUIRE(kSuccess == CUDA_SUCCESS);
    STATIC_REQUIRE(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
    STATIC_REQUIRE(kNoBinaryForGpu == CUDA_ERROR_NO_BINARY_FOR_GPU);
    STATIC_REQUIRE(kUnsupportedPtxVersion == CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    STATIC_REQUIRE(kMultiprocessorCount == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    STATIC_REQUIRE(kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    STATIC_REQUIRE(kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    STATIC_REQUIRE(kSharedMemoryPerMultiprocessor == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    STATIC_REQUIRE(kMaxDynamicSharedBytes == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
}

}  // namespace paro::cuda::driver
