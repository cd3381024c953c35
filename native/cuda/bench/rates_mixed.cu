// Work of the ordinary units beside wgmma: products and everything else share the registers' ports, so what the units
// do alone is not what they do in attention.
#include "rate_bench.cuh"

namespace paro::cuda::bench {
namespace {

// What attention does to its scores but for the products, 16 of a thread a turn: o takes in sums, scores start again,
// weights are made of scores and added up. CONVERT: sums are integers that o cannot take in as they are.
template <bool CONVERT>
struct Elements {
    float o[16] = {};
    std::int32_t s[16], top = 0;
    std::uint32_t sum = 0;
    __device__ Elements() {
        for (int i = 0; i < 16; ++i) s[i] = static_cast<int>(threadIdx.x) * 77 + i;
    }
    // As if a product had come: none does, but the compiler cannot know.
    __device__ __forceinline__ void product(float a) {
        if (a != 5.0f) return;
#pragma unroll
        for (int i = 0; i < 16; ++i) s[i] += i;
        __nanosleep(10);
    }
    __device__ __forceinline__ void turn(float a, float b) {
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const float x = CONVERT ? static_cast<float>(s[i]) : __int_as_float(s[i]);
            o[i] = fmaf(x, a, o[i]);
            s[i] = __float_as_int(fmaf(o[i], 0.0f, kRound));
        }
        product(a);
#pragma unroll
        for (int i = 0; i < 16; i += 2) top = max_of_three(top, s[i], s[i + 1]);
        float e[16];
#pragma unroll
        for (int i = 0; i < 16; ++i) e[i] = exp2_fast(fmaf(__int_as_float(s[i]), a, b));
#pragma unroll
        for (int i = 0; i < 16; i += 4) {
            sum = __dp4a(round_weights(e[i], e[i + 1], e[i + 2], e[i + 3]), 0x01010101u, sum);
        }
        product(a);
    }
    __device__ float end() const {
        float all = static_cast<float>(top) + static_cast<float>(sum);
        for (int i = 0; i < 16; ++i) all += o[i] + static_cast<float>(s[i]);
        return all;
    }
};

// One instruction alone, on 16 registers.
template <class Op>
struct Alone {
    float x[16];
    __device__ Alone() {
        for (int i = 0; i < 16; ++i) x[i] = 0.001f * static_cast<float>(threadIdx.x + 32 * i);
    }
    __device__ __forceinline__ void turn(float, float) {
#pragma unroll
        for (int i = 0; i < 16; ++i) x[i] = Op::apply(x[i]);
    }
    __device__ float end() const {
        float all = 0.0f;
        for (int i = 0; i < 16; ++i) all += x[i];
        return all;
    }
};

// Warpgroups that make elements beside `products` warpgroups of wgmma, until the first has done its turns. out of a
// CTA: clocks, turns of 16 elements of a thread over all its warpgroups.
template <class Work>
__global__ void __launch_bounds__(512) mixed_rate(int products, float a, float b, long long* out, float* sink) {
#if defined(PARO_SM90A)
    PARO_DYNAMIC_SHARED(shared);
    __shared__ volatile int over;
    __shared__ int all_turns;
    for (int i = threadIdx.x * 4; i < 64 << 10; i += blockDim.x * 4) *reinterpret_cast<int*>(shared + i) = i * 2654435;
    if (threadIdx.x == 0) over = all_turns = 0;
    fence_async();
    __syncthreads();
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
    const long long begin = now();
    if (group < products) {
        std::int32_t d[16][4] = {};
        const std::uint64_t q = tile_descriptor(shared_address(shared) + group * 8192, 128);
        const std::uint64_t k = tile_descriptor(shared_address(shared) + 32768, 128);
        for (int turn = 0; turn < kTurns / 16; ++turn) {
            fence_registers(d);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 16; ++i) wgmma_ss(d, q + i % 4 * kDescriptorStep, k + i % 4 * kDescriptorStep, true);
            wgmma_commit();
            wgmma_wait<0>();
            fence_registers(d);
        }
        if (d[0][0] == 0x7ffffff1) *sink = 1.0f;
    } else {
        Work elements;
        int turns = 0;
        for (; group == 0 ? turns < kTurns : over == 0; turns += 8) {
#pragma unroll 1
            for (int i = 0; i < 8; ++i) elements.turn(a, b);
        }
        const float end = elements.end();
        if (end == 1234.5f) *sink = end;
        if (threadIdx.x % 128 == 0) atomicAdd(&all_turns, turns);
    }
    if (threadIdx.x == 0) {
        over = 1;
        out[blockIdx.x * 2] = now() - begin;
    }
    __syncthreads();
    if (threadIdx.x == 0) out[blockIdx.x * 2 + 1] = all_turns;
#endif
}

// Alone and beside a warpgroup that does nothing but wgmma: on the same registers the two slow each other down.
template <class Work>
void mixed(RateBench& bench, int ctas, const char* what) {
    const auto kernel = mixed_rate<Work>;
    constexpr int bytes = 64 << 10, groups = 2;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "mixed_rate");
    for (const int products : {0, 1}) {
        char name[80];
        std::snprintf(name, sizeof(name), "%s, %d groups%s", what, groups, products ? ", beside wgmma" : "");
        const auto launch = [&] {
            kernel<<<ctas, (groups + products) * 128, bytes>>>(products, 0.001f, -3.0f, bench.clocks(), bench.sink());
        };
        if (!bench.time(name, 2 * ctas, launch)) continue;
        long long all[2];
        check(cudaMemcpy(all, bench.clocks(), sizeof(all), cudaMemcpyDeviceToHost), name);
        const auto clocks = static_cast<double>(all[0]);
        std::printf("rate %-36s %6.1f clocks for 64 elements of a warp, %3.0f%% of wgmma\n", name,
                    clocks * 4 / static_cast<double>(all[1]),
                    100.0 * products * (kTurns / 16) * 16.0 * 64 * 128 * 32 / 4096 / clocks);
    }
}

}  // namespace

void measure_mixed_rates(RateBench& bench, int ctas) {
    mixed<Elements<true>>(bench, ctas, "elements, sums converted");
    mixed<Elements<false>>(bench, ctas, "elements");
    mixed<Alone<Fma>>(bench, ctas, Fma::name);
    mixed<Alone<Max3>>(bench, ctas, Max3::name);
    mixed<Alone<Exp2>>(bench, ctas, Exp2::name);
}

}  // namespace paro::cuda::bench
