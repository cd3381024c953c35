// Runs the CUDA kernels on a CPU, CTA by CTA: every thread of a CTA is a fiber, and what threads do together (barriers,
// shuffles, matrix instructions) waits until all of them have come. For checking the kernels where there is no GPU:
// arithmetic, layout, barriers, and waits: copies come as late as they may and their places hold poison until then, and
// so do, where late_products says so, the accumulators of asynchronous products. Of timing it knows nothing, and of
// races between ordinary loads and stores only that the order of threads changes from CTA to CTA.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

// The toolkit's attributes mean nothing to this compiler. One CTA at a time: shared memory may be static.
#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __global__
#define __global__
#undef __device__
#define __device__
#undef __forceinline__
#define __forceinline__ inline
#define PARO_DYNAMIC_SHARED(name) unsigned char* const name = paro::emulator::dynamic_shared

namespace paro::emulator {

struct Index {
    unsigned x = 0;
};
inline constexpr int kSharedBytes = 228 << 10;
alignas(1024) inline unsigned char dynamic_shared[kSharedBytes];

// Runs `body` as every thread of every CTA. Throws std::runtime_error if threads wait for each other for ever.
void run(unsigned grid, unsigned threads, const std::function<void()>& body);
// Of the running fiber.
Index thread_index();
Index block_index();
void barrier();       // of the CTA
void warp_barrier();  // of the warp

// One lane's part in an operation of its whole warp: hands in `in`, and when all 32 have come `work` turns the warp's
// inputs into outputs, once.
constexpr std::size_t kOperand = 128, kGroupOutput = 256;
void warp_operation(const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes,
                    void (*work)(const unsigned char (*in)[kOperand], unsigned char (*out)[kOperand]));

// The same of four warps, a warpgroup.
void group_operation(const void* in, std::size_t in_bytes, void* out, std::size_t out_bytes,
                     void (*work)(const unsigned char (*in)[kOperand], unsigned char (*out)[kGroupOutput]));
// bar.sync and bar.arrive.
void named_barrier(int id, int threads, bool wait);
// mbarrier by its address: bytes may be negative (arrived).
void mbarrier_init(std::uint32_t address, std::uint32_t count);
void mbarrier_change(std::uint32_t address, std::uint32_t arrivals, std::int64_t bytes);
void mbarrier_wait(std::uint32_t address, std::uint32_t parity);

// Bulk copies: their bytes come when somebody waits for the barrier.
void copy_in_bulk(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier);
// cp.async of the running thread; from null: zeros. They come when it waits for their group.
void copy_async(std::uint32_t to, const void* from, std::uint32_t bytes);
void commit_copies();
void wait_copies(unsigned pending);

// Whether wgmma reads and writes when it is asked for, or when it is waited for. Both are legal, so both must be right.
inline bool late_products = false;
void multiply_later(std::int32_t* sums, std::size_t count, std::function<void()> work);
void commit_products();
void wait_products(unsigned pending);

template <class T>
T read(const unsigned char* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

}  // namespace paro::emulator

#define threadIdx (paro::emulator::thread_index())
#define blockIdx (paro::emulator::block_index())

inline void __syncthreads() { paro::emulator::barrier(); }
inline void __syncwarp() { paro::emulator::warp_barrier(); }
inline void __threadfence() {}
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __fmaf_rd(float a, float b, float c) {
    const double exact = double{a} * b + c;  // off by 2^-53 at most
    const auto near = static_cast<float>(exact);
    return near > exact ? std::nextafter(near, -INFINITY) : near;
}
inline float __fadd_rd(float a, float b) {
    const double exact = double{a} + b;
    const auto near = static_cast<float>(exact);
    return near > exact ? std::nextafter(near, -INFINITY) : near;
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
template <class T>
T __ldcg(const T* p) {
    return *p;
}
template <class T>
T atomicAdd(T* p, T x) {
    const T old = *p;
    *p += x;
    return old;
}
template <class T>
T max(T a, T b) {
    return a > b ? a : b;
}
template <class T>
T min(T a, T b) {
    return a < b ? a : b;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += ((a >> i) & 0xff) * ((b >> i) & 0xff);
    return c;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const std::uint64_t both = std::uint64_t{y} << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= ((both >> ((selector >> (4 * i)) & 7) * 8) & 0xff) << (8 * i);
    return result;
}

namespace paro::emulator {
struct Shuffled {
    std::uint32_t value;
    int from;
};
}  // namespace paro::emulator

template <class T>
T shuffle(T value, int from) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8);
    struct In {
        T value;
        int from;
    } in{value, from};
    T out;
    paro::emulator::warp_operation(
        &in, sizeof(in), &out, sizeof(out), [](const unsigned char(*all)[128], unsigned char(*result)[128]) {
            for (int lane = 0; lane < 32; ++lane) {
                const In source = paro::emulator::read<In>(all[paro::emulator::read<In>(all[lane]).from & 31]);
                std::memcpy(result[lane], &source.value, sizeof(T));
            }
        });
    return out;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
    return shuffle(value, from);
}
inline int __all_sync(unsigned mask, int x) {
    for (int bit = 1; bit < 32; bit *= 2) x = __shfl_xor_sync(mask, x, bit) != 0 && x != 0;
    return x;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned x) {
    for (int bit = 1; bit < 32; bit *= 2) x = max(x, __shfl_xor_sync(mask, x, bit));
    return x;
}
