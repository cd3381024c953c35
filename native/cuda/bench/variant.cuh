// What the files of hopper_variants share.
#pragma once

#define PARO_TRACE
#include "attention_hopper_int8.cuh"
#include "hopper_variants.h"

namespace paro::cuda::bench {
namespace {

template <int D, int BLOCK, int GROUPS, HopperOptions O>
constexpr HopperVariant variant(const char* name) {
    return {name, D, GROUPS * kWarpgroupRows, BLOCK, O.trace, launch_hopper<D, BLOCK, GROUPS, O>};
}

}  // namespace

template <int D>
std::span<const HopperVariant> variants_of();
template <int D>
void take_trace_of(TraceSums& sums) {
#if defined(PARO_EMULATE)
    std::memcpy(sums, hopper_trace, sizeof(sums));
    std::memset(hopper_trace, 0, sizeof(sums));
#else
    const TraceSums zeros = {};
    check(cudaMemcpyFromSymbol(sums, hopper_trace, sizeof(sums)), "cudaMemcpyFromSymbol");
    check(cudaMemcpyToSymbol(hopper_trace, zeros, sizeof(zeros)), "cudaMemcpyToSymbol");
#endif
}

}  // namespace paro::cuda::bench
