// What the files of rates share: clocks on the GPU, timing of a launch, and instructions that both measure.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "launch_kernel.h"
#include "problem.h"
#include "ptx_hopper.cuh"
#include "runtime.h"
#include "softmax_int8.cuh"
#include "watchdog.h"

namespace paro::cuda::bench {

constexpr int kTurns = 2048;

// Clocks of a CTA, by its first thread.
__device__ __forceinline__ long long now() {
    long long clocks;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clocks)::"memory");
    return clocks;
}
__device__ __forceinline__ void keep_clocks(long long begin, long long* out) {
    if (threadIdx.x == 0) out[blockIdx.x] = now() - begin;
}

// One instruction on a register.
struct Exp2 {
    static constexpr const char* name = "ex2.f32";
    __device__ static float apply(float x) { return exp2_fast(x); }
};
struct Fma {
    static constexpr const char* name = "ffma";
    __device__ static float apply(float x) { return fmaf(x, 1.25f, -0.5f); }
};
struct Max3 {
    static constexpr const char* name = "vimnmx3";
    __device__ static float apply(float x) {
        return __int_as_float(
            max_of_three(__float_as_int(x), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)));
    }
};

class RateBench {
   public:
    explicit RateBench(Watchdog& watchdog) : watchdog_(watchdog), clocks_(allocate(1024 * 8)), sink_(allocate(64)) {
        check(cudaEventCreate(&begin_), "cudaEventCreate");
        check(cudaEventCreate(&end_), "cudaEventCreate");
    }
    long long* clocks() { return reinterpret_cast<long long*>(clocks_.get()); }
    float* sink() { return reinterpret_cast<float*>(sink_.get()); }

    // Runs twice; the second counts. Clocks: the median CTA's. False where an earlier start has done it.
    template <class Launch>
    bool time(const char* name, int ctas, Launch launch) {
        if (!watchdog_.step(name)) return false;
        launch();
        check(cudaEventRecord(begin_), name);
        launch();
        check(cudaEventRecord(end_), name);
        ms = watchdog_.elapsed(begin_, end_, 5.0);
        std::vector<long long> all(static_cast<std::size_t>(ctas));
        check(cudaMemcpy(all.data(), clocks(), all.size() * 8, cudaMemcpyDeviceToHost), name);
        std::nth_element(all.begin(), all.begin() + ctas / 2, all.end());
        median = static_cast<double>(all[static_cast<std::size_t>(ctas / 2)]);
        return true;
    }
    double ms = 0.0, median = 1.0;

   private:
    Watchdog& watchdog_;
    Device<std::byte> clocks_, sink_;
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// What elements of attention cost beside wgmma.
void measure_mixed_rates(RateBench& bench, int ctas);

}  // namespace paro::cuda::bench
