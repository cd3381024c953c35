// Instances of the Hopper kernel that are held beside the one that calls take: by the benchmark on a GPU, and by the
// emulated tests, which want all of them right.
#pragma once

#include <span>

#include "cta_shapes.h"
#include "launch_kernel.h"
#include "paro/cuda/params.h"

namespace paro::cuda::bench {

struct HopperVariant {
    const char* name;  // what it does differently: see HopperOptions
    int head_dim, block_q, block_kv;
    HopperOptions options;
    Kernel& kernel;
};

std::span<const HopperVariant> hopper_variants(int head_dim);
void launch(const HopperVariant& variant, const AttentionParams& p, Stream stream);

// What traced instances of a head_dim added up since the last call, to device memory: TraceSums.
constexpr int kTraceNumbers = 6;
using TraceSums = unsigned long long[2][kTraceNumbers];  // [warpgroup][kTrace...] of hopper_ring.cuh
void take_trace(int head_dim, unsigned long long* sums, Stream stream);

}  // namespace paro::cuda::bench
