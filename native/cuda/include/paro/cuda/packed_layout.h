// Where every packed byte stands: shared by the pack kernels, every attention kernel and the tests on the host.
//
// A tile is a matrix of bytes with rows of 64 or 128 bytes, stored contiguous and already swizzled as the tensor cores
// want it in shared memory: one bulk copy of rows * row_bytes brings it, wgmma descriptors name it SWIZZLE_64B or
// SWIZZLE_128B, and ldmatrix reads it without bank conflicts. Bases are multiples of 1024 bytes.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PARO_HD __host__ __device__ __forceinline__
#else
#define PARO_HD inline
#endif

namespace paro::cuda {

// Byte (row, byte) of a swizzled tile. 128: the 16-byte chunk index is XORed with row % 8; 64: with (row / 2) % 4.
PARO_HD constexpr std::int32_t tile_offset(std::int32_t row, std::int32_t byte, std::int32_t row_bytes) {
    const std::int32_t mix = row_bytes == 128 ? (row & 7) : ((row >> 1) & 3);
    return row * row_bytes + (byte ^ (mix << 4));
}

// Keys of v stand permuted inside every group of 16, so that a thread's weights, as the accumulators of q k^T hold them
// (columns 2t, 2t+1, 8+2t, 8+2t+1 of 16, t = lane % 4), are the bytes that the A operand of the second product wants
// from it (places 4t .. 4t+3): P goes from one product to the other without shuffles. The same for mma.sync m16n8k32
// and for wgmma with A in registers.
//
// The key that stands at a place, both counted inside their block.
PARO_HD constexpr std::int32_t v_key(std::int32_t place) {
    const std::int32_t t = (place >> 2) & 3, i = place & 3;
    return (place & ~15) + (i >> 1) * 8 + 2 * t + (i & 1);
}
// Its inverse.
PARO_HD constexpr std::int32_t v_place(std::int32_t key) {
    const std::int32_t t = (key >> 1) & 3, i = ((key >> 3) & 1) * 2 + (key & 1);
    return (key & ~15) + 4 * t + i;
}

}  // namespace paro::cuda
