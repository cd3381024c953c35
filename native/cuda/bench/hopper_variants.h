// Instances of the Hopper kernel that are held beside the one that calls take: by the benchmark on a GPU, and by the
// emulated tests, which want all of them right.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "paro/cuda/params.h"

namespace paro::cuda::bench {

struct HopperVariant {
    const char* name;  // what it does differently: see HopperOptions
    int head_dim, block_q, block_kv;
    bool trace;
    void (*launch)(const AttentionParams&, cudaStream_t);
};

std::span<const HopperVariant> hopper_variants(int head_dim);

// What traced instances of a head_dim added up since the last call: [warpgroup][kTrace...] of hopper_ring.cuh.
constexpr int kTraceNumbers = 6;
using TraceSums = unsigned long long[2][kTraceNumbers];
void take_trace(int head_dim, TraceSums& sums);

}  // namespace paro::cuda::bench
