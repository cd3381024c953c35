// Masks found on the fly (dynamic_mask.h). Means first, then a CTA scores 16 mask rows against all key blocks of its
// head and picks from them; by mass, a third launch sorts rows for the schedule.
#include "launch_kernel.h"
#include "paro/cuda/dynamic_mask.h"
#include "score_tile.cuh"

namespace paro::cuda {
namespace {

constexpr int kThreads = 128;
// Of choosing: scores of two rows a warp fill the shared memory of long sequences, so a CTA had better be wide.
constexpr int kChoosing = 256, kWarps = kChoosing / 32;
constexpr int kRows = 16;  // mask rows of a CTA
// A probability in these units: sums are exact.
constexpr float kMassUnit = 2147483648.0f;

// Mean row of a grid block. Sums in fp32, in a fixed order.
template <class T, int D>
__global__ void __launch_bounds__(kThreads) pool_blocks_kernel(const __grid_constant__ DynamicMaskParams p) {
    constexpr int parts = D / 8, rows = kThreads / parts;
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
template <class Number>
__device__ __forceinline__ Number warp_total(Number x) {
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

__device__ __forceinline__ std::uint32_t mass_of(float p) { return __float2uint_rn(p * kMassUnit); }

// Which blocks of a row stay: all above the threshold, and of those at it the first `ties`. Keys are the bits of
// probabilities, which sort as they do.
struct Choice {
    std::uint32_t threshold;
    std::int32_t ties;
};

__device__ Choice choose_count(const float* p, std::int32_t cols, std::int32_t count) {
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

// `masses`: room for the row's masses, each lane's its own: converting them 31 times would take longer than the rest.
__device__ Choice choose_mass(const float* p, std::uint32_t* masses, std::int32_t cols, float target) {
    const int lane = threadIdx.x % 32;
    long long mine = 0;
    for (std::int32_t c = lane; c < cols; c += 32) {
        masses[c] = mass_of(p[c]);
        mine += masses[c];
    }
    const double wanted = static_cast<double>(target) * static_cast<double>(warp_total(mine));
    std::uint32_t threshold = 0;
    long long above = 0;
    for (std::uint32_t bit = 1u << 30; bit > 0; bit /= 2) {
        mine = 0;
        for (std::int32_t c = lane; c < cols; c += 32) {
            if (__float_as_uint(p[c]) >= (threshold | bit)) mine += masses[c];
        }
        const long long found = warp_total(mine);
        if (static_cast<double>(found) >= wanted) {
            threshold |= bit;
        } else {
            above = found;
        }
    }
    // A row without mass keeps its first block.
    if (!(wanted > 0.0)) return {0, 1};
    const double each = static_cast<double>(mass_of(__uint_as_float(threshold)));
    const double missing = wanted - static_cast<double>(above);
    return {threshold, max(1, static_cast<std::int32_t>(ceil(missing / each)))};
}

// Bits of a row, by its warp; returns how many are set.
__device__ std::int32_t write_bits(const float* p, std::int32_t cols, Choice choice, std::uint32_t* words) {
    const int lane = threadIdx.x % 32;
    std::int32_t total = 0, ties = choice.ties;
    for (std::int32_t first = 0; first < cols; first += 32) {
        const bool exists = first + lane < cols;
        const std::uint32_t key = exists ? __float_as_uint(p[first + lane]) : 0;
        const std::uint32_t equal = __ballot_sync(0xffffffffu, exists && key == choice.threshold);
        const bool early = __popc(equal & ((1u << lane) - 1)) < ties;
        const bool stays = exists && (key > choice.threshold || (key == choice.threshold && early));
        const std::uint32_t word = __ballot_sync(0xffffffffu, stays);
        if (lane == 0) words[first / 32] = word;
        total += __popc(word);
        ties = max(0, ties - __popc(equal));
    }
    return total;
}

PARO_HD bool two_buffers(const DynamicMaskParams& p) { return p.base.batch > 1 || p.by_mass != 0; }

template <int D>
__global__ void __launch_bounds__(kChoosing) select_blocks_kernel(const __grid_constant__ DynamicMaskParams p) {
    PARO_DYNAMIC_SHARED(shared);
    const AttentionParams& base = p.base;
    const std::int32_t rows = base.q_blocks.grid_blocks, cols = base.kv_blocks.grid_blocks;
    const std::int32_t groups = (rows + kRows - 1) / kRows, index = static_cast<std::int32_t>(blockIdx.x);
    const std::int32_t head = index / groups, first_row = (index - head * groups) * kRows;
    // Rows start on other banks. With a batch or masses, probabilities stand after the scores, else in their place.
    const std::int32_t stride = cols + 4;
    auto* scores = reinterpret_cast<float*>(shared);
    float* sums = two_buffers(p) ? scores + kRows * stride : scores;
    const int warp = threadIdx.x / 32;
    const float share = 1.0f / static_cast<float>(base.batch);
    for (std::int32_t b = 0; b < base.batch; ++b) {
        __syncthreads();
        score_rows<D>(p, b * base.heads + head, first_row, scores, stride);
        __syncthreads();
        for (int r = warp; r < kRows; r += kWarps) {
            add_softmax(scores + r * stride, sums + r * stride, cols, share, b == 0);
        }
    }
    __syncwarp();
    const float target = p.targets[head];
    const auto count = static_cast<std::int32_t>(floor(static_cast<double>(target) * cols + 0.5));
    for (int r = warp; r < kRows && first_row + r < rows; r += kWarps) {
        const float* own = sums + r * stride;
        const std::int64_t row = std::int64_t{head} * rows + first_row + r;
        const Choice choice =
            p.by_mass ? choose_mass(own, reinterpret_cast<std::uint32_t*>(scores + r * stride), cols, target)
                      : choose_count(own, cols, min(cols, max(1, count)));
        const std::int32_t kept = write_bits(own, cols, choice, p.masks + row * base.plan.mask_words);
        if (threadIdx.x % 32 == 0) {
            p.counts[row] = kept;
            if (!p.by_mass) p.schedule[row] = first_row + r;
        }
    }
}

// A thread per mask row: its place among the head's rows, more blocks first, then the lower index.
__global__ void __launch_bounds__(kThreads) sort_rows_kernel(const __grid_constant__ DynamicMaskParams p) {
    const std::int32_t rows = p.base.q_blocks.grid_blocks, groups = (rows + kThreads - 1) / kThreads;
    const std::int32_t head = static_cast<std::int32_t>(blockIdx.x) / groups;
    const std::int32_t row = (static_cast<std::int32_t>(blockIdx.x) - head * groups) * kThreads + threadIdx.x;
    if (row >= rows) return;
    const std::int32_t* counts = p.counts + std::int64_t{head} * rows;
    const std::int32_t own = counts[row];
    std::int32_t place = 0;
    for (std::int32_t i = 0; i < rows; ++i) place += counts[i] > own || (counts[i] == own && i < row);
    p.schedule[std::int64_t{head} * rows + place] = row;
}

template <class T, int D>
void launch(const DynamicMaskParams& p, cudaStream_t stream) {
    const AttentionParams& base = p.base;
    const std::int64_t bytes = std::int64_t{two_buffers(p) ? 2 : 1} * kRows * (base.kv_blocks.grid_blocks + 4) * 4;
    require(bytes <= shared_memory_limit() - 2048, "grid",
            "must have fewer key blocks for masks found on the fly: a mask row has to fit shared memory",
            base.kv_blocks.grid_blocks);
    const std::int64_t blocks = std::int64_t{base.q_blocks.grid_blocks} + base.kv_blocks.grid_blocks;
    launch_kernel("pool_blocks_kernel", pool_blocks_kernel<T, D>, base.slots() * blocks, kThreads, 0, stream, p);
    const std::int64_t groups = (base.q_blocks.grid_blocks + kRows - 1) / kRows;
    launch_kernel("select_blocks_kernel", select_blocks_kernel<D>, base.heads * groups, kChoosing,
                  static_cast<int>(bytes), stream, p);
    if (!p.by_mass) return;
    const std::int64_t sorts = (base.q_blocks.grid_blocks + kThreads - 1) / kThreads;
    launch_kernel("sort_rows_kernel", sort_rows_kernel, base.heads * sorts, kThreads, 0, stream, p);
}

template <class T>
void launch(const DynamicMaskParams& p, cudaStream_t stream) {
    p.base.head_dim == 128 ? launch<T, 128>(p, stream) : launch<T, 64>(p, stream);
}

std::size_t means(const DynamicMaskParams& p, const BlockParams& blocks) {
    return static_cast<std::size_t>(p.base.slots()) * blocks.grid_blocks * p.base.head_dim;
}

}  // namespace

std::size_t dynamic_mask_bytes(const DynamicMaskParams& p) {
    return 4 * (means(p, p.base.q_blocks) + means(p, p.base.kv_blocks));
}
void place_dynamic_mask(DynamicMaskParams& p, void* base) {
    p.q_high = static_cast<std::uint16_t*>(base);
    p.q_low = p.q_high + means(p, p.base.q_blocks);
    p.k_high = p.q_low + means(p, p.base.q_blocks);
    p.k_low = p.k_high + means(p, p.base.kv_blocks);
}

void launch_dynamic_mask(const DynamicMaskParams& p, cudaStream_t stream) {
    switch (p.base.dtype) {
        case DType::f32:
            return launch<float>(p, stream);
        case DType::f16:
            return launch<__half>(p, stream);
        case DType::bf16:
            return launch<__nv_bfloat16>(p, stream);
    }
}

}  // namespace paro::cuda
