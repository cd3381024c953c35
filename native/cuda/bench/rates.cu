#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "launch_kernel.h"
#include "ptx_hopper.cuh"
#include "rate_bench.cuh"
#include "rates.h"

namespace paro::cuda::bench {
namespace {

constexpr int kChains = 8;

// One instruction on each of kChains registers.
struct IntToFloat {
    static constexpr const char* name = "i2fp + xor";
    __device__ static float apply(float x) {
        return __int_as_float(__float_as_int(__int2float_rn(__float_as_int(x))) ^ 5);
    }
};
struct ToHalves {
    static constexpr const char* name = "f2fp.f16x2";
    __device__ static float apply(float x) { return __uint_as_float(to_halves(x, 1.0f)); }
};
struct ToBytes {
    static constexpr const char* name = "f2ip x 2 + or";
    __device__ static float apply(float x) { return __uint_as_float(round_weights(x, 1.0f, x, 2.0f) | 0x3f000000u); }
};
struct Exp2ToBytes {
    static constexpr const char* name = "ex2 x 2, f2ip x 2, or";
    __device__ static float apply(float x) {
        const float a = exp2_fast(x), b = exp2_fast(x + 1.0f);
        return __uint_as_float(round_weights(a, b, a, x) | 0x3f000000u);
    }
};
struct Exp2AndSum {
    static constexpr const char* name = "ex2 + i2fp + ffma";
    __device__ static float apply(float x) {
        const float a = exp2_fast(x);
        return fmaf(__int2float_rn(__float_as_int(a)), 1.25f, a);
    }
};
struct SumBytes {
    static constexpr const char* name = "idp.4a";
    __device__ static float apply(float x) {
        return __uint_as_float(__dp4a(__float_as_uint(x), 0x01010101u, __float_as_uint(x)));
    }
};

template <class Op>
__global__ void instruction_rate(long long* clocks, float* sink) {
    float x[kChains];
    for (int i = 0; i < kChains; ++i) x[i] = 0.001f * static_cast<float>(threadIdx.x + 32 * i);
    __syncthreads();
    const long long begin = now();
#pragma unroll 4
    for (int turn = 0; turn < kTurns; ++turn) {
#pragma unroll
        for (int i = 0; i < kChains; ++i) x[i] = Op::apply(x[i]);
    }
    __syncthreads();
    keep_clocks(begin, clocks);
    float sum = 0.0f;
    for (int i = 0; i < kChains; ++i) sum += x[i];
    if (sum == 1234.5f) *sink = sum;
}

// mma.sync m16n8k32 s8, kChains products in flight a warp.
__global__ void mma_rate(long long* clocks, float* sink) {
    std::int32_t d[kChains][4] = {};
    const std::uint32_t a[4] = {threadIdx.x, 2, 3, 4};
    __syncthreads();
    const long long begin = now();
#pragma unroll 2
    for (int turn = 0; turn < kTurns; ++turn) {
#pragma unroll
        for (int i = 0; i < kChains; ++i) mma_s8(d[i], a, 5, threadIdx.x + 6);
    }
    __syncthreads();
    keep_clocks(begin, clocks);
    for (int i = 0; i < kChains; ++i) {
        if (d[i][0] == 0x7ffffff1) *sink = 1.0f;
    }
}

// wgmma 64 x N x 32, sixteen a group; a from shared memory or registers.
template <int N, bool FROM_SHARED>
__global__ void __launch_bounds__(512) wgmma_rate(long long* clocks, float* sink) {
#if defined(PARO_SM90A)
    PARO_DYNAMIC_SHARED(shared);
    for (int i = threadIdx.x * 4; i < 64 << 10; i += blockDim.x * 4) *reinterpret_cast<int*>(shared + i) = i * 2654435;
    fence_async();
    __syncthreads();
    std::int32_t d[N / 8][4] = {};
    const std::uint32_t words[4] = {threadIdx.x, 2, 3, 4};
    const int group = threadIdx.x / 128;
    const std::uint64_t a = tile_descriptor(shared_address(shared) + group * 8192, 128);
    const std::uint64_t b = tile_descriptor(shared_address(shared) + 32768, 128);
    const long long begin = now();
    for (int turn = 0; turn < kTurns / 32; ++turn) {
        fence_registers(d);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int ks = i % 4;
            if constexpr (FROM_SHARED) {
                wgmma_ss(d, a + ks * kDescriptorStep, b + ks * kDescriptorStep, true);
            } else {
                wgmma_rs(d, words, b + ks * kDescriptorStep, true);
            }
        }
        wgmma_commit();
        wgmma_wait<0>();
        fence_registers(d);
    }
    __syncthreads();
    keep_clocks(begin, clocks);
    if (d[0][0] == 0x7ffffff1) *sink = 1.0f;
#endif
}

// Bulk copies of `bytes` into a ring of `stages`, from a buffer of `size` bytes that all CTAs walk from places apart.
__global__ void bulk_rate(long long* clocks, const std::byte* from, std::int64_t size, int bytes, int stages,
                          int turns) {
#if defined(PARO_SM90A)
    PARO_DYNAMIC_SHARED(shared);
    __shared__ std::uint64_t full[8];
    if (threadIdx.x == 0) {
        for (int s = 0; s < stages; ++s) barrier_init(shared_address(&full[s]), 1);
        fence_barrier_init();
        const long long begin = now();
        std::int64_t at = (std::int64_t{blockIdx.x} * 7919 * 16384) % size;
        for (int turn = 0; turn < turns + stages; ++turn) {
            const int s = turn % stages;
            if (turn >= stages) barrier_wait(shared_address(&full[s]), (turn / stages - 1) % 2);
            if (turn < turns) {
                barrier_expect(shared_address(&full[s]), bytes);
                copy_bulk(shared_address(shared) + s * bytes, from + at, bytes, shared_address(&full[s]));
                at = (at + bytes) % size;
            }
        }
        keep_clocks(begin, clocks);
    }
#endif
}

__global__ void spin(long long* clocks) {
    const long long begin = now();
    while (now() - begin < 20'000'000) {
    }
    keep_clocks(begin, clocks);
}

template <class Op>
void instruction(RateBench& bench, int ctas) {
    constexpr int threads = 512;
    const auto launch = [&] { instruction_rate<Op><<<ctas, threads>>>(bench.clocks(), bench.sink()); };
    if (!bench.time(Op::name, ctas, launch)) return;
    std::printf("rate %-28s %6.1f a clock and SM\n", Op::name, double{kTurns} * kChains * threads / bench.median);
}

template <int N, bool FROM_SHARED>
void wgmma(RateBench& bench, int ctas, int groups) {
    const auto kernel = wgmma_rate<N, FROM_SHARED>;
    constexpr int bytes = 64 << 10;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "wgmma_rate");
    char name[64];
    std::snprintf(name, sizeof(name), "wgmma 64x%dx32 %s, %d groups", N, FROM_SHARED ? "ss" : "rs", groups);
    const auto launch = [&] { kernel<<<ctas, groups * 128, bytes>>>(bench.clocks(), bench.sink()); };
    if (!bench.time(name, ctas, launch)) return;
    const double products = double{kTurns} / 32 * 16 * groups * 64 * N * 32;
    std::printf("rate %-28s %6.0f products a clock and SM (4096 at best), %5.0f TOP/s\n", name, products / bench.median,
                2e-9 * products * ctas / bench.ms);
}

}  // namespace

void measure_rates(Watchdog& watchdog) {
    const int sms = multiprocessors();
    RateBench bench(watchdog);
    for (const int warps : {4, 8, 16}) {
        char name[64];
        std::snprintf(name, sizeof(name), "mma.sync m16n8k32 s8, %d warps", warps);
        const auto launch = [&] { mma_rate<<<sms, warps * 32>>>(bench.clocks(), bench.sink()); };
        if (!bench.time(name, sms, launch)) continue;
        const double products = double{kTurns} * kChains * warps * 16 * 8 * 32;
        std::printf("rate %-28s %6.0f products a clock and SM, %5.0f TOP/s\n", name, products / bench.median,
                    2e-9 * products * sms / bench.ms);
    }
    for (const int groups : {1, 2, 4}) {
        wgmma<128, true>(bench, sms, groups);
        wgmma<128, false>(bench, sms, groups);
    }
    wgmma<64, true>(bench, sms, 2);
    wgmma<64, false>(bench, sms, 2);
    measure_mixed_rates(bench, sms);
    instruction<Exp2>(bench, sms);
    instruction<Fma>(bench, sms);
    instruction<IntToFloat>(bench, sms);
    instruction<Max3>(bench, sms);
    instruction<ToHalves>(bench, sms);
    instruction<SumBytes>(bench, sms);
    instruction<ToBytes>(bench, sms);
    instruction<Exp2ToBytes>(bench, sms);
    instruction<Exp2AndSum>(bench, sms);

    const std::size_t gigabyte = std::size_t{1} << 30;
    const Device<std::byte> source = allocate(gigabyte), target = allocate(gigabyte);
    check(cudaFuncSetAttribute(bulk_rate, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10), "bulk_rate");
    const struct {
        const char* name;
        std::int64_t size;
        int bytes, stages;
    } copies[] = {{"bulk copies 16 KB x 8, L2", 16 << 20, 16 << 10, 8},
                  {"bulk copies 16 KB x 4, L2", 16 << 20, 16 << 10, 4},
                  {"bulk copies 8 KB x 8, L2", 16 << 20, 8 << 10, 8},
                  {"bulk copies 4 KB x 8, L2", 16 << 20, 4 << 10, 8},
                  {"bulk copies 16 KB x 8, HBM", std::int64_t{1} << 30, 16 << 10, 8}};
    for (const auto& copy : copies) {
        const int turns = (8 << 20) / copy.bytes;
        const auto launch = [&] {
            bulk_rate<<<sms, 32, copy.bytes * copy.stages>>>(bench.clocks(), source.get(), copy.size, copy.bytes,
                                                             copy.stages, turns);
        };
        if (!bench.time(copy.name, sms, launch)) continue;
        std::printf("rate %-28s %6.1f bytes a clock and SM, %6.0f GB/s\n", copy.name, double{8 << 20} / bench.median,
                    1e-6 * sms * (8 << 20) / bench.ms);
    }
    const auto copy = [&] {
        check(cudaMemcpyAsync(target.get(), source.get(), gigabyte, cudaMemcpyDeviceToDevice, nullptr), "copy");
    };
    if (bench.time("copy of 1 GiB", 1, copy)) {
        std::printf("rate %-28s %6.0f GB/s read and written\n", "copy of 1 GiB", 2e-6 * double(gigabyte) / bench.ms);
    }
    if (bench.time("clock", 1, [&] { spin<<<1, 32>>>(bench.clocks()); })) {
        std::printf("rate %-28s %6.3f GHz\n", "clock of an idle chip", 1e-6 * bench.median / bench.ms);
    }
    std::fflush(stdout);
}

}  // namespace paro::cuda::bench
