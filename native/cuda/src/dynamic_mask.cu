// Masks found on the fly (dynamic_mask.h). Means first, then a CTA scores 16 mask rows against all key blocks of its
// head and picks from them.
#include "kernel.cuh"
#include "paro/cuda/dynamic_mask.h"
#include "score_tile.cuh"

namespace paro::cuda {
namespace {

constexpr int kWarps = kSelectThreads / 32;

// Mean row of a grid block. Sums in fp32, in a fixed order.
template <class T, int D>
__device__ __forceinline__ void pool_blocks_body(const DynamicMaskParams& p) {
    constexpr int parts = D / 8, rows = kPoolThreads / parts;
    __shared__ float scratch[rows][D];
    const AttentionParams& base = p.base;
    std::int32_t index = static_cast<std::int32_t>(blockIdx.x);
    const std::int32_t of_q = base.slots() * base.q_blocks.grid_blocks;
    const bool is_q = index < of_q;
    if (!is_q) index -= of_q;
    const BlockParams& blocks = is_q ? base.q_blocks : base.kv_blocks;
    const TensorParams& tensor = is_q ? base.q : base.k;
    const std::int32_t slot = index / blocks.grid_blocks, block = blocks.prefix_blocks + index % blocks.grid_blocks;
    const std::int32_t count = base.layout.tokens_in(blocks, block), order = base.plan.orders[slot % base.heads];
    const int part = threadIdx.x % parts, first = threadIdx.x / parts;
    const T* head = head_rows<T>(tensor, base, slot) + part * 8;
    float sum[8] = {};
#pragma unroll 4
    for (int row = first; row < count; row += rows) {
        float x[8];
        load8(head + base.layout.token(blocks, order, block, row) * tensor.stride_n, x);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[j] += x[j];
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) scratch[first][part * 8 + j] = sum[j];
    __syncthreads();
    const int d = threadIdx.x;
    if (d >= D) return;
    float mean = 0.0f;
#pragma unroll
    for (int r = 0; r < rows; ++r) mean += scratch[r][d];
    mean *= (is_q ? base.sm_scale * kLog2E : 1.0f) / static_cast<float>(count);
    const __nv_bfloat16 high = __float2bfloat16(mean);
    const __nv_bfloat16 low = __float2bfloat16(mean - __bfloat162float(high));
    const std::int64_t at = std::int64_t{index} * D + d;
    reinterpret_cast<__nv_bfloat16*>(is_q ? p.q_high : p.k_high)[at] = high;
    reinterpret_cast<__nv_bfloat16*>(is_q ? p.q_low : p.k_low)[at] = low;
}

// Two neighbouring elements as an operand has them, zeros past the last block.
__device__ __forceinline__ std::uint32_t pair_at(const std::uint16_t* means, std::int32_t block, std::int32_t blocks,
                                                 int width, int d) {
    if (block >= blocks) return 0;
    return __ldg(reinterpret_cast<const std::uint32_t*>(means + std::int64_t{block} * width + d));
}

// Scores of 16 mask rows against all key blocks of a slot, in powers of two.
template <int D>
__device__ void score_rows(const DynamicMaskParams& p, std::int32_t slot, std::int32_t first_row, float* scores,
                           std::int32_t stride) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4, g = lane / 4;
    const std::int32_t rows = p.base.q_blocks.grid_blocks, cols = p.base.kv_blocks.grid_blocks;
    const std::int64_t q_at = std::int64_t{slot} * rows * D, k_at = std::int64_t{slot} * cols * D;
    std::uint32_t high[D / 16][4], low[D / 16][4];
#pragma unroll
    for (int ks = 0; ks < D / 16; ++ks) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const std::int32_t row = first_row + g + i % 2 * 8;
            const int d = ks * 16 + i / 2 * 8 + 2 * t;
            high[ks][i] = pair_at(p.q_high + q_at, row, rows, D, d);
            low[ks][i] = pair_at(p.q_low + q_at, row, rows, D, d);
        }
    }
    const std::int32_t tokens = p.base.layout.tokens_in(p.base.kv_blocks, p.base.kv_blocks.prefix_blocks + cols - 1);
    const float last = log2f(static_cast<float>(tokens) / static_cast<float>(p.base.kv_blocks.block));
    for (std::int32_t col = warp * 8; col < cols; col += kWarps * 8) {
        float s[4] = {};
#pragma unroll
        for (int ks = 0; ks < D / 16; ++ks) {
            std::uint32_t b[2][2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int d = ks * 16 + i * 8 + 2 * t;
                b[0][i] = pair_at(p.k_high + k_at, col + g, cols, D, d);
                b[1][i] = pair_at(p.k_low + k_at, col + g, cols, D, d);
            }
            mma_half<__nv_bfloat16>(s, low[ks], b[0][0], b[0][1]);
            mma_half<__nv_bfloat16>(s, high[ks], b[1][0], b[1][1]);
            mma_half<__nv_bfloat16>(s, high[ks], b[0][0], b[0][1]);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const std::int32_t at = col + 2 * t + i % 2;
            if (at < cols) scores[(g + i / 2 * 8) * stride + at] = s[i] + (at == cols - 1 ? last : 0.0f);
        }
    }
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
    return x;
}
__device__ __forceinline__ float warp_total(float x) {
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) x += __shfl_xor_sync(0xffffffffu, x, bit);
    return x;
}

// A warp's row: scores to probabilities times `share`, added to what `p` holds unless this is the first.
__device__ void add_softmax(const float* scores, float* p, std::int32_t cols, float share, bool is_first) {
    const int lane = threadIdx.x % 32;
    float top = minus_infinity(), sum = 0.0f;
    for (std::int32_t c = lane; c < cols; c += 32) top = fmaxf(top, scores[c]);
    top = warp_max(top);
    for (std::int32_t c = lane; c < cols; c += 32) sum += exp2_fast(scores[c] - top);
    const float inverse = share / warp_total(sum);
    for (std::int32_t c = lane; c < cols; c += 32) {
        const float x = exp2_fast(scores[c] - top) * inverse;
        // A row that is not finite has no greatest blocks: all count as equal.
        p[c] = (is_first ? 0.0f : p[c]) + (is_finite(x) ? x : 0.0f);
    }
}

// Which blocks of a row stay: all above the threshold, and of those at it the first `ties`. Keys are the bits of
// probabilities, which sort as they do.
struct Choice {
    std::uint32_t threshold;
    std::int32_t ties;
};

__device__ Choice choose(const float* p, std::int32_t cols, std::int32_t count) {
    const int lane = threadIdx.x % 32;
    std::uint32_t threshold = 0;
    std::int32_t above = 0;
    for (std::uint32_t bit = 1u << 30; bit > 0; bit /= 2) {
        std::int32_t mine = 0;
        for (std::int32_t c = lane; c < cols; c += 32) mine += __float_as_uint(p[c]) >= (threshold | bit);
        const std::int32_t found = __reduce_add_sync(0xffffffffu, mine);
        if (found >= count) {
            threshold |= bit;
        } else {
            above = found;
        }
    }
    return {threshold, count - above};
}

// Bits of a row, by its warp.
__device__ void write_bits(const float* p, std::int32_t cols, Choice choice, std::uint32_t* words) {
    const int lane = threadIdx.x % 32;
    std::int32_t ties = choice.ties;
    for (std::int32_t first = 0; first < cols; first += 32) {
        const bool exists = first + lane < cols;
        const std::uint32_t key = exists ? __float_as_uint(p[first + lane]) : 0;
        const std::uint32_t equal = __ballot_sync(0xffffffffu, exists && key == choice.threshold);
        const bool early = __popc(equal & ((1u << lane) - 1)) < ties;
        const bool stays = exists && (key > choice.threshold || (key == choice.threshold && early));
        const std::uint32_t word = __ballot_sync(0xffffffffu, stays);
        if (lane == 0) words[first / 32] = word;
        ties = max(0, ties - __popc(equal));
    }
}

template <int D>
__device__ __forceinline__ void select_blocks_body(const DynamicMaskParams& p) {
    PARO_DYNAMIC_SHARED(shared);
    const AttentionParams& base = p.base;
    const std::int32_t rows = base.q_blocks.grid_blocks, cols = base.kv_blocks.grid_blocks;
    const std::int32_t groups = (rows + kSelectRows - 1) / kSelectRows, index = static_cast<std::int32_t>(blockIdx.x);
    const std::int32_t head = index / groups, first_row = (index - head * groups) * kSelectRows;
    // Rows start on other banks. With a batch, probabilities stand after the scores, else in their place.
    const std::int32_t stride = select_stride(cols);
    auto* scores = reinterpret_cast<float*>(shared);
    float* sums = select_two_buffers(base.batch) ? scores + kSelectRows * stride : scores;
    const int warp = threadIdx.x / 32;
    const float share = 1.0f / static_cast<float>(base.batch);
    for (std::int32_t b = 0; b < base.batch; ++b) {
        __syncthreads();
        score_rows<D>(p, b * base.heads + head, first_row, scores, stride);
        __syncthreads();
        for (int r = warp; r < kSelectRows; r += kWarps) {
            add_softmax(scores + r * stride, sums + r * stride, cols, share, b == 0);
        }
    }
    __syncwarp();
    const auto asked = static_cast<std::int32_t>(floor(static_cast<double>(p.densities[head]) * cols + 0.5));
    const std::int32_t count = min(cols, max(1, asked));
    for (int r = warp; r < kSelectRows && first_row + r < rows; r += kWarps) {
        const float* own = sums + r * stride;
        const std::int64_t row = std::int64_t{head} * rows + first_row + r;
        write_bits(own, cols, choose(own, cols, count), p.masks + row * base.plan.mask_words);
        if (threadIdx.x % 32 == 0) p.schedule[row] = first_row + r;
    }
}

}  // namespace

#define PARO_POOL_BLOCKS(T, D)                                                                              \
    PARO_KERNEL(paro_pool_blocks_##T##_d##D, (kPoolThreads), (const __grid_constant__ DynamicMaskParams p), \
                pool_blocks_body<T, D>(p))
PARO_POOL_BLOCKS(f32, 64)
PARO_POOL_BLOCKS(f32, 128)
PARO_POOL_BLOCKS(f16, 64)
PARO_POOL_BLOCKS(f16, 128)
PARO_POOL_BLOCKS(bf16, 64)
PARO_POOL_BLOCKS(bf16, 128)
#define PARO_SELECT_BLOCKS(D)                                                                             \
    PARO_KERNEL(paro_select_blocks_d##D, (kSelectThreads), (const __grid_constant__ DynamicMaskParams p), \
                select_blocks_body<D>(p))
PARO_SELECT_BLOCKS(64)
PARO_SELECT_BLOCKS(128)

}  // namespace paro::cuda
