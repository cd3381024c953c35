// Attention problems on the GPU without torch: normal bf16 data as models hand it over, random masks, and the same
// computed in fp32 by the simplest kernel there is.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "paro/cuda/params.h"

namespace paro::cuda::bench {

struct Shape {
    const char* name;
    std::int32_t batch, heads, grid[3], prefix, suffix, head_dim;
    std::int64_t length() const { return prefix + std::int64_t{grid[0]} * grid[1] * grid[2] + suffix; }
};
// Those of `python -m paroattention bench attention`.
extern const Shape kShapes[4];

// Device memory that is let go with its owner.
template <class T>
using Device = std::unique_ptr<T[], void (*)(void*)>;
Device<std::byte> allocate(std::size_t bytes);

// q, k, v and o of a shape: (B, N, H * D) memory in bf16.
struct Tensors {
    explicit Tensors(const Shape& shape, float scale = 1.0f);
    Device<std::byte> memory[4];
    std::size_t bytes;  // of each
};

// A call ready to launch; the tensors must outlive it.
class Problem {
   public:
    // Masks of `density_total` of all blocks (prefix and suffix included), at least one block a row.
    Problem(const Shape& shape, Tensors& tensors, int block_q, int block_kv, double density_total, bool tail,
            int order = 3, Precision precision = Precision::int8);
    AttentionParams params{};
    double density_total = 0.0;
    // 64 x 64 tiles of products that the masks ask for, over all slots.
    std::int64_t tiles() const { return tiles_; }

    // Relative error of o to fp32 over up to `rows` rows of each slot, and whether all of o is finite. Checks q, k and
    // v as they are.
    double error(int rows) const;

   private:
    Device<std::byte> plan_, queries_, keys_;
    std::int64_t tiles_ = 0;
};

// Fills with a byte / whether two outputs are the same bits.
void poison(Tensors& tensors);
std::uint64_t checksum(const Tensors& tensors);

}  // namespace paro::cuda::bench
