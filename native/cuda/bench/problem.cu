#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "paro/cuda/launch.h"
#include "paro/plan.h"
#include "problem.h"
#include "runtime.h"

namespace paro::cuda::bench {

const Shape kShapes[4] = {{"wan1.3b-480p", 1, 12, {21, 30, 52}, 0, 0, 128},
                          {"cogvideox-5b", 2, 48, {13, 30, 45}, 226, 0, 64},
                          {"wan14b-720p", 1, 10, {21, 45, 80}, 0, 0, 128},
                          {"flux-1024", 1, 24, {1, 64, 64}, 512, 0, 128}};

namespace {

__device__ std::uint32_t hash(std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

__global__ void fill_normal(__nv_bfloat16* out, std::int64_t count, std::uint32_t seed, float scale) {
    for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < count;
         i += std::int64_t{gridDim.x} * blockDim.x) {
        const std::uint32_t a = hash(static_cast<std::uint32_t>(i) ^ seed);
        const std::uint32_t b = hash(a + 0x9e3779b9u + static_cast<std::uint32_t>(i >> 32));
        const float u = (a + 1.0f) * 2.3283064e-10f;
        out[i] = __float2bfloat16(scale * sqrtf(-2.0f * logf(u)) * cospif(b * 4.6566129e-10f));
    }
}

__device__ float element(const TensorParams& x, const AttentionParams& p, int slot, std::int64_t token, int d) {
    const int batch = slot / p.heads, head = slot % p.heads;
    return __bfloat162float(
        static_cast<const __nv_bfloat16*>(x.data)[batch * x.stride_b + head * x.stride_h + token * x.stride_n + d]);
}

// Mean keys and values of grid blocks: [slot][grid block][2][D].
__global__ void pool(AttentionParams p, float* pooled) {
    const int slot = blockIdx.x / p.kv_blocks.grid_blocks, block = blockIdx.x % p.kv_blocks.grid_blocks;
    const int index = p.kv_blocks.prefix_blocks + block, count = p.layout.tokens_in(p.kv_blocks, index);
    const int d = threadIdx.x, order = p.plan.orders[slot % p.heads];
    float k = 0.0f, v = 0.0f;
    for (int row = 0; row < count; ++row) {
        const int token = p.layout.token(p.kv_blocks, order, index, row);
        k += element(p.k, p, slot, token, d);
        v += element(p.v, p, slot, token, d);
    }
    pooled[(std::int64_t{blockIdx.x} * 2) * p.head_dim + d] = k / count;
    pooled[(std::int64_t{blockIdx.x} * 2 + 1) * p.head_dim + d] = v / count;
}

// Running softmax of one thread.
struct Part {
    float m = -INFINITY, l = 0.0f, o[128] = {};
    template <class Value>
    __device__ void add(float score, int head_dim, Value value) {
        const float next = fmaxf(m, score), keep = expf(m - next), weight = expf(score - next);
        m = next;
        l = l * keep + weight;
        for (int d = 0; d < head_dim; ++d) o[d] = o[d] * keep + weight * value(d);
    }
};

constexpr int kThreads = 64;

// Every `stride`-th query row of a slot, a CTA each; sums[0] += |o - exact|^2, sums[1] += |exact|^2 in double.
__global__ void compare_rows(AttentionParams p, const float* pooled, int stride, double* sums) {
    __shared__ float q[128], merged[kThreads][129], tops[kThreads], parts[kThreads];
    const int rows = p.q_blocks.blocks() * p.q_blocks.block, per_slot = rows / stride;
    const int slot = blockIdx.x / per_slot, place = blockIdx.x % per_slot * stride + slot % stride;
    const int tile = place / p.q_blocks.block, row = place % p.q_blocks.block, order = p.plan.orders[slot % p.heads];
    if (place >= rows || row >= p.layout.tokens_in(p.q_blocks, tile)) return;
    const std::int64_t token = p.layout.token(p.q_blocks, order, tile, row);
    for (int d = threadIdx.x; d < p.head_dim; d += kThreads) q[d] = element(p.q, p, slot, token, d) * p.sm_scale;
    __syncthreads();
    const bool in_grid = p.q_blocks.is_grid(tile);
    const std::uint32_t* mask = in_grid ? p.mask_row(slot % p.heads, tile) : nullptr;
    Part part;
    for (int index = 0; index < p.kv_blocks.blocks(); ++index) {
        const int block = index - p.kv_blocks.prefix_blocks, count = p.layout.tokens_in(p.kv_blocks, index);
        const bool all = !mask || !p.kv_blocks.is_grid(index) || (mask[block / 32] >> (block % 32) & 1);
        for (int i = threadIdx.x; all && i < count; i += kThreads) {
            const int key = p.layout.token(p.kv_blocks, order, index, i);
            float score = 0.0f;
            for (int d = 0; d < p.head_dim; ++d) score += q[d] * element(p.k, p, slot, key, d);
            part.add(score, p.head_dim, [&](int d) { return element(p.v, p, slot, key, d); });
        }
        if (!all && p.tail && index % kThreads == static_cast<int>(threadIdx.x)) {
            const float* k = pooled + (std::int64_t{slot} * p.kv_blocks.grid_blocks + block) * 2 * p.head_dim;
            float score = logf(static_cast<float>(count));
            for (int d = 0; d < p.head_dim; ++d) score += q[d] * k[d];
            part.add(score, p.head_dim, [&](int d) { return k[p.head_dim + d]; });
        }
    }
    tops[threadIdx.x] = part.m;
    parts[threadIdx.x] = part.l;
    for (int d = 0; d < p.head_dim; ++d) merged[threadIdx.x][d] = part.o[d];
    __syncthreads();
    float top = -INFINITY, l = 0.0f;
    for (int t = 0; t < kThreads; ++t) top = fmaxf(top, tops[t]);
    for (int t = 0; t < kThreads; ++t) l += parts[t] * expf(tops[t] - top);
    for (int d = threadIdx.x; d < p.head_dim; d += kThreads) {
        float exact = 0.0f;
        for (int t = 0; t < kThreads; ++t) exact += merged[t][d] * expf(tops[t] - top);
        exact /= l;
        const TensorParams o{p.o.data, p.o.stride_b, p.o.stride_h, p.o.stride_n};
        const double difference = double{element(o, p, slot, token, d)} - exact;
        atomicAdd(sums, difference * difference);
        atomicAdd(sums + 1, double{exact} * exact);
    }
}

__global__ void add_words(const std::uint32_t* words, std::int64_t count, unsigned long long* sum) {
    unsigned long long mine = 0;
    for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < count;
         i += std::int64_t{gridDim.x} * blockDim.x) {
        mine += words[i] * (2 * static_cast<unsigned long long>(i) + 1);
    }
    atomicAdd(sum, mine);
}

void let_go(void* p) { cudaFree(p); }

// Masks of about this density of all blocks, at least one block a row, every head in one order.
Plan random_plan(const Shape& shape, const AttentionParams& p, double density, int order) {
    const std::int64_t rows = p.q_blocks.grid_blocks, cols = p.kv_blocks.grid_blocks;
    const double q_all = p.q_blocks.blocks(), kv_all = p.kv_blocks.blocks(), outside = kv_all - cols;
    // Prefix and suffix are always computed; the grid gets what they leave.
    const double left = (density * q_all * kv_all - (q_all - rows) * kv_all - rows * outside) / (double(rows) * cols);
    const auto threshold = static_cast<std::uint64_t>(std::clamp(left, 0.0, 1.0) * 0x1p32);
    std::uint64_t state = 88172645463325252ull;
    const auto next = [&] {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return static_cast<std::uint32_t>(state >> 32);
    };
    std::vector<HeadPlan> heads;
    for (std::int32_t head = 0; head < p.heads; ++head) {
        BlockMask mask(rows, cols);
        for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t c = 0; c < cols; ++c) {
                if (next() < threshold) mask.set(r, c);
            }
            mask.set(r, next() % cols);
        }
        heads.push_back({static_cast<AxisOrder>(order), std::move(mask)});
    }
    const TokenLayout layout{shape.prefix, {shape.grid[0], shape.grid[1], shape.grid[2]}, shape.suffix};
    return make_plan(layout, p.q_blocks.block, p.kv_blocks.block, std::move(heads));
}

}  // namespace

Device<std::byte> allocate(std::size_t bytes) {
    void* p = nullptr;
    check(cudaMalloc(&p, bytes), "cudaMalloc");
    check(cudaMemset(p, 0xff, bytes), "cudaMemset");
    return {static_cast<std::byte*>(p), let_go};
}

Tensors::Tensors(const Shape& shape, float scale)
    : memory{{nullptr, let_go}, {nullptr, let_go}, {nullptr, let_go}, {nullptr, let_go}} {
    const std::int64_t count = shape.batch * shape.heads * shape.length() * shape.head_dim;
    bytes = static_cast<std::size_t>(count) * 2;
    for (std::uint32_t i = 0; i < 4; ++i) {
        memory[i] = allocate(bytes);
        if (i < 3) {
            fill_normal<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16*>(memory[i].get()), count, 77 * i + 1,
                                       i < 2 ? scale : 1.0f);
        }
    }
    check(cudaGetLastError(), "fill_normal");
}

Problem::Problem(const Shape& shape, Tensors& tensors, int block_q, int block_kv, double density, bool tail, int order,
                 Precision precision)
    : plan_{nullptr, let_go}, queries_{nullptr, let_go}, keys_{nullptr, let_go} {
    AttentionParams& p = params;
    p.dtype = DType::bf16;
    p.precision = precision;
    p.batch = shape.batch, p.heads = shape.heads, p.head_dim = shape.head_dim;
    p.sm_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    p.tail = tail;
    set_sizes(p, {shape.prefix, {shape.grid[0], shape.grid[1], shape.grid[2]}, shape.suffix, block_q, block_kv});
    const std::int64_t row = std::int64_t{shape.heads} * shape.head_dim;
    const auto view = [&](int i) {
        return TensorParams{tensors.memory[i].get(), shape.length() * row, shape.head_dim, row};
    };
    p.q = view(0), p.k = view(1), p.v = view(2);
    p.o = {tensors.memory[3].get(), shape.length() * row, shape.head_dim, row};
    const Plan plan = random_plan(shape, p, density, order);
    density_total = plan.density_total;
    const double blocks = double(p.heads) * p.q_blocks.blocks() * p.kv_blocks.blocks();
    tiles_ = std::llround(density_total * blocks) * p.batch * (block_q / 64) * (block_kv / 64);
    const std::vector<std::int32_t> words = plan_words(plan);
    plan_ = allocate(words.size() * 4);
    check(cudaMemcpy(plan_.get(), words.data(), words.size() * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
    place_plan(p, plan_.get());
    queries_ = allocate(query_bytes(p));
    keys_ = allocate(key_bytes(p));
    place_queries(p, queries_.get());
    place_keys(p, keys_.get());
}

double Problem::error(int rows) const {
    const AttentionParams& p = params;
    const Device<std::byte> pooled = allocate(std::size_t{8} * p.slots() * p.kv_blocks.grid_blocks * p.head_dim),
                            sums = allocate(16);
    check(cudaMemset(sums.get(), 0, 16), "cudaMemset");
    auto* means = reinterpret_cast<float*>(pooled.get());
    pool<<<p.slots() * p.kv_blocks.grid_blocks, p.head_dim>>>(p, means);
    const int all = p.q_blocks.blocks() * p.q_blocks.block, stride = std::max(1, all / rows);
    compare_rows<<<p.slots() * (all / stride), kThreads>>>(p, means, stride, reinterpret_cast<double*>(sums.get()));
    check(cudaGetLastError(), "compare_rows");
    double result[2];
    check(cudaMemcpy(result, sums.get(), 16, cudaMemcpyDeviceToHost), "compare_rows");
    return result[1] > 0.0 ? std::sqrt(result[0] / result[1]) : std::numeric_limits<double>::infinity();
}

void poison(Tensors& tensors) {
    check(cudaMemsetAsync(tensors.memory[3].get(), 0xff, tensors.bytes, nullptr), "poison");
}

std::uint64_t checksum(const Tensors& tensors) {
    const Device<std::byte> sum = allocate(8);
    check(cudaMemset(sum.get(), 0, 8), "cudaMemset");
    add_words<<<512, 256>>>(reinterpret_cast<const std::uint32_t*>(tensors.memory[3].get()),
                            static_cast<std::int64_t>(tensors.bytes / 4),
                            reinterpret_cast<unsigned long long*>(sum.get()));
    std::uint64_t result = 0;
    check(cudaMemcpy(&result, sum.get(), 8, cudaMemcpyDeviceToHost), "checksum");
    return result;
}

}  // namespace paro::cuda::bench
