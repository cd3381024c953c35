// Votes, counts and conversions of the kernels that observe, on a CPU.
#pragma once

#include <cmath>

#include "emulated_ptx.h"

inline unsigned __ballot_sync(unsigned mask, int x) {
    unsigned bits = x != 0 ? 1u << threadIdx.x % 32 : 0u;
    for (int bit = 1; bit < 32; bit *= 2) bits |= __shfl_xor_sync(mask, bits, bit);
    return bits;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __reduce_add_sync(unsigned mask, int x) {
    for (int bit = 1; bit < 32; bit *= 2) x += __shfl_xor_sync(mask, x, bit);
    return x;
}
// Saturates, as the GPU's conversion does; NaN gives 0.
inline unsigned __float2uint_rn(float x) {
    if (!(x > 0.0f)) return 0;
    return x >= 4294967296.0f ? 0xffffffffu : static_cast<unsigned>(std::nearbyint(double{x}));
}

namespace paro::cuda {
template <class T>
void mma_half_first(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    d[0] = d[1] = d[2] = d[3] = 0.0f;
    mma_half<T>(d, a, b0, b1);
}
inline float log2_fast(float x) { return std::log2(x); }
}  // namespace paro::cuda
