// What a plan keeps of the attention of sampled queries. Keys and values are read once, in the head's order: a block of
// keys is in or out for a whole row, so one pass makes both outputs, the exact one and the one that the plan would
// give.
#include "kernel.cuh"
#include "output.cuh"
#include "samples.cuh"

namespace paro::cuda {
namespace {

// Index of a grid place in an order: paro/axis_order.h, the inverse of LayoutParams::token.
__device__ __forceinline__ std::int32_t index_in_order(const SampleParams& p, std::int32_t order, std::int32_t place) {
    const GridPlace at(p.base, place);
    const std::int32_t *side = p.sides, f = at.f, h = at.h, w = at.w;
    switch (order) {
        case 0:  // FHW
            return place;
        case 1:  // FWH
            return (f * side[2] + w) * side[1] + h;
        case 2:  // HFW
            return (h * side[0] + f) * side[2] + w;
        case 3:  // HWF
            return (h * side[2] + w) * side[0] + f;
        case 4:  // WFH
            return (w * side[0] + f) * side[1] + h;
        default:  // WHF
            return (w * side[1] + h) * side[0] + f;
    }
}

template <int D>
struct MeterState {
    float exact[D / 8][4], sparse[D / 8][4];
    // Of this thread's columns but for m: sums of all weights, of what the plan weighs, of the grid, of the grid
    // inside.
    float m[2], all[2], kept[2], grid[2], inside[2];

    __device__ void start() {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            m[half] = minus_infinity();
            all[half] = kept[half] = grid[half] = inside[half] = 0.0f;
        }
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) exact[nt][i] = sparse[nt][i] = 0.0f;
        }
    }
    // Goes to the greater maxima `next`; exponentials count from `base`.
    __device__ __forceinline__ void rescale(const float (&next)[2], const float (&base)[2]) {
        if (__all_sync(0xffffffffu, next[0] == m[0] && next[1] == m[1])) return;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float alpha = exp2_fast(m[half] - base[half]);
            m[half] = next[half];
            all[half] *= alpha, kept[half] *= alpha, grid[half] *= alpha, inside[half] *= alpha;
#pragma unroll
            for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    exact[nt][2 * half + i] *= alpha;
                    sparse[nt][2 * half + i] *= alpha;
                }
            }
        }
    }
};

// Both outputs take in 64 keys: `s` and `kept` are their weights, exact and as the plan has them.
template <class T, int D>
__device__ __forceinline__ void accumulate(MeterState<D>& state, const TileScores<1>& s, const TileScores<1>& kept,
                                           std::uint32_t values) {
    const int lane = threadIdx.x % 32;
    const std::uint32_t v = values + row_byte<D>(lane % 16, lane / 16);
#pragma unroll
    for (int ks = 0; ks < kScoreKeys / 16; ++ks) {
        std::uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&x)[4] = s[0][2 * ks + i / 2];
            const float(&y)[4] = kept[0][2 * ks + i / 2];
            a[0][i] = narrow(x[i % 2 * 2], x[i % 2 * 2 + 1], T{});
            a[1][i] = narrow(y[i % 2 * 2], y[i % 2 * 2 + 1], T{});
        }
#pragma unroll
        for (int pair = 0; pair < D / 16; ++pair) {
            std::uint32_t b[4];
            load_matrices_transposed(b, (v ^ (pair << 5)) + ks * 16 * 2 * D);
            mma_half<T>(state.exact[2 * pair], a[0], b[0], b[1]);
            mma_half<T>(state.exact[2 * pair + 1], a[0], b[2], b[3]);
            mma_half<T>(state.sparse[2 * pair], a[1], b[0], b[1]);
            mma_half<T>(state.sparse[2 * pair + 1], a[1], b[2], b[3]);
        }
    }
}

// What a thread needs to know of a block for its two rows.
struct BlockView {
    int count;  // tokens
    bool in_grid;
    bool inside[2];   // computed by the plan
    float base[2];    // of the exponentials
    float pooled[2];  // weight of each key where the block is skipped: the tail's, or 0
};

// 64 keys of a block, of which `count` are tokens.
template <class T, int D>
__device__ __forceinline__ void take_keys(MeterState<D>& state, TileScores<1>& s, const BlockView& block, int count,
                                          float scale, bool outputs, std::uint32_t values) {
    TileScores<1> kept;
    const int mine = threadIdx.x % 4 * 2;
#pragma unroll
    for (int nt = 0; nt < kScoreTiles; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int half = i / 2;
            const bool token = 8 * nt + mine + i % 2 < count;
            const float weight = token ? exp2_fast(fmaf(s[0][nt][i], scale, -block.base[half])) : 0.0f;
            const float own = block.inside[half] ? weight : token ? block.pooled[half] : 0.0f;
            s[0][nt][i] = weight;
            kept[0][nt][i] = own;
            state.all[half] += weight;
            state.kept[half] += own;
            state.grid[half] += block.in_grid ? weight : 0.0f;
            state.inside[half] += block.in_grid && block.inside[half] ? weight : 0.0f;
        }
    }
    if (outputs) accumulate<T, D>(state, s, kept, values);
}

// Maximum and sum of the tokens' scores of 64 keys, this thread's columns.
__device__ __forceinline__ void survey(const TileScores<1>& s, int count, float (&top)[2], float (&sum)[2]) {
    const int mine = threadIdx.x % 4 * 2;
#pragma unroll
    for (int nt = 0; nt < kScoreTiles; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (8 * nt + mine + i % 2 >= count) continue;
            top[i / 2] = fmaxf(top[i / 2], s[0][nt][i]);
            sum[i / 2] += s[0][nt][i];
        }
    }
}

// A block whose keys and values stand at `keys` and after them. The mean score of a skipped block is the score of its
// mean key, and its mean value weighs as all its values alike: so the tail needs no pooling here.
template <class T, int D, int BLOCK>
__device__ __forceinline__ void take_block(MeterState<D>& state, const SharedQueries<D, 1>& q, BlockView block,
                                           bool tail, bool outputs, float scale, std::uint32_t keys) {
    constexpr int part = kScoreKeys * D * 2;
    const std::uint32_t values = keys + BLOCK * D * 2;
    TileScores<1> s;
    float top[2] = {minus_infinity(), minus_infinity()}, sum[2] = {};
    const int parts = block.count > kScoreKeys ? 2 : 1;
#pragma unroll 1
    for (int i = 0; i < parts; ++i) {
        score_tile<T, D, 1>(q, keys + i * part, s);
        survey(s, block.count - i * kScoreKeys, top, sum);
    }
    float next[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        next[half] = fmaxf(state.m[half], quad_max(top[half]) * scale);
        block.base[half] = exponent_base(next[half]);
        const float mean = quad_sum(sum[half]) * scale / static_cast<float>(block.count);
        block.pooled[half] = tail ? exp2_fast(mean - block.base[half]) : 0.0f;
    }
    state.rescale(next, block.base);
    // The scores at hand are the last part's; those of the first of two come again rather than stay in registers.
#pragma unroll 1
    for (int i = parts - 1; i >= 0; --i) {
        if (i != parts - 1) score_tile<T, D, 1>(q, keys + i * part, s);
        take_keys<T, D>(state, s, block, block.count - i * kScoreKeys, scale, outputs, values + i * part);
    }
}

template <int D>
__device__ __forceinline__ void store_partial(const MeterParams& p, const MeterState<D>& state, std::int32_t index) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float* to = p.partial + (std::int64_t{index} * kSampleRows + row + 8 * half) * (kMeterStats + 2 * D);
        const float all = quad_sum(state.all[half]), kept = quad_sum(state.kept[half]);
        const float grid = quad_sum(state.grid[half]), inside = quad_sum(state.inside[half]);
        if (lane % 4 == 0) {
            *reinterpret_cast<float4*>(to) = make_float4(state.m[half], all, kept, grid);
            to[4] = inside;
        }
        if (!p.outputs) continue;
        to += kMeterStats + lane % 4 * 2;
#pragma unroll
        for (int nt = 0; nt < D / 8; ++nt) {
            *reinterpret_cast<float2*>(to + nt * 8) =
                make_float2(state.exact[nt][2 * half], state.exact[nt][2 * half + 1]);
            *reinterpret_cast<float2*>(to + D + nt * 8) =
                make_float2(state.sparse[nt][2 * half], state.sparse[nt][2 * half + 1]);
        }
    }
}

template <class T, int D, int BLOCK>
__device__ __forceinline__ void meter_body(const MeterParams& p) {
    PARO_DYNAMIC_SHARED(shared);
    constexpr int q_bytes = kSampleRows * D * 2, stage_bytes = 2 * BLOCK * D * 2;
    const SampleParams& sample = p.sample;
    const AttentionParams& base = sample.base;
    const std::int32_t index = static_cast<std::int32_t>(blockIdx.x), number = index / sample.splits;
    const std::int32_t split = index - number * sample.splits, blocks = base.kv_blocks.blocks();
    const auto begin = static_cast<std::int32_t>(std::int64_t{split} * blocks / sample.splits);
    const auto end = static_cast<std::int32_t>((split + std::int64_t{1}) * blocks / sample.splits);
    const SampleItem item(sample, number);
    const std::int32_t order = base.plan.orders[item.head];
    const std::uint32_t q_at = shared_address(shared), ring = q_at + q_bytes;
    copy_samples<T, D>(sample, item, q_at);

    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    const std::uint32_t* mask[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const std::int32_t place = max(0, item.place(sample, row + 8 * half));
        const std::int32_t tile = index_in_order(sample, order, place) / base.q_blocks.block;
        mask[half] = base.mask_row(item.head, base.q_blocks.prefix_blocks + tile);
    }
    SharedQueries<D, 1> q;
    q.load(q_at);
    MeterState<D> state;
    state.start();
    const float scale = base.sm_scale * kLog2E;
    stream_tiles<meter_stages(BLOCK)>(
        end - begin, [] {},
        [&](int t, int stage) {
            using Rows = RowCopy<T, D, BLOCK>;
            const std::uint32_t to = ring + stage * stage_bytes;
            const bool token = Rows::row() < base.layout.tokens_in(base.kv_blocks, begin + t);
            const std::int32_t place = token ? base.layout.token(base.kv_blocks, order, begin + t, Rows::row()) : -1;
            Rows::copy(head_rows<T>(base.k, base, item.slot), base.k.stride_n, place, to);
            if (p.outputs)
                Rows::copy(head_rows<T>(base.v, base, item.slot), base.v.stride_n, place, to + BLOCK * D * 2);
        },
        [&](int t, int stage) {
            BlockView block;
            block.count = base.layout.tokens_in(base.kv_blocks, begin + t);
            block.in_grid = base.kv_blocks.is_grid(begin + t);
            const std::int32_t column = begin + t - base.kv_blocks.prefix_blocks;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                block.inside[half] = !block.in_grid || ((mask[half][column / 32] >> (column % 32)) & 1) != 0;
            }
            take_block<T, D, BLOCK>(state, q, block, base.tail != 0, p.outputs != 0, scale, ring + stage * stage_bytes);
        });
    store_partial<D>(p, state, index);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) x += __shfl_xor_sync(0xffffffffu, x, bit);
    return x;
}

// A warp per sampled row: its splits put together.
template <int D>
__device__ __forceinline__ void meter_rows_body(const MeterParams& p) {
    constexpr int warps = kScoreThreads / 32, per_item = kSampleRows / warps, stride = kMeterStats + 2 * D,
                  own = D / 32;
    const SampleParams& sample = p.sample;
    const std::int32_t index = static_cast<std::int32_t>(blockIdx.x), number = index / per_item;
    const int lane = threadIdx.x % 32, row = (index - number * per_item) * warps + threadIdx.x / 32;
    const SampleItem item(sample, number);
    if (row >= item.count) return;  // whole warps
    const float* partial = p.partial + (std::int64_t{number} * sample.splits * kSampleRows + row) * stride;
    constexpr std::int64_t step = std::int64_t{kSampleRows} * stride;
    float top = minus_infinity();
    for (std::int32_t s = 0; s < sample.splits; ++s) top = fmaxf(top, partial[s * step]);
    float all = 0.0f, kept = 0.0f, grid = 0.0f, inside = 0.0f, exact[own] = {}, sparse[own] = {};
    for (std::int32_t s = 0; s < sample.splits; ++s) {
        const float* from = partial + s * step;
        const float weight = exp2_fast(from[0] - exponent_base(top));
        all += from[1] * weight, kept += from[2] * weight, grid += from[3] * weight, inside += from[4] * weight;
        if (!p.outputs) continue;
#pragma unroll
        for (int i = 0; i < own; ++i) {
            exact[i] += from[kMeterStats + i * 32 + lane] * weight;
            sparse[i] += from[kMeterStats + D + i * 32 + lane] * weight;
        }
    }
    float error = 0.0f, norm = 0.0f;
#pragma unroll
    for (int i = 0; i < own; ++i) {
        const float x = exact[i] / all, difference = sparse[i] / kept - x;
        error += difference * difference;
        norm += x * x;
    }
    error = warp_sum(error);
    norm = warp_sum(norm);
    const bool fine = item.place(sample, row) >= 0 && is_finite(all) && is_finite(error) && is_finite(norm);
    if (lane != 0) return;
    p.rows[std::int64_t{item.head} * sample.queries + item.first + row] =
        fine ? make_float4(inside / all, grid / all, error, norm) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// A CTA per head.
__device__ __forceinline__ void meter_heads_body(const MeterParams& p) {
    __shared__ float4 sums[kScoreThreads];
    const std::int32_t head = static_cast<std::int32_t>(blockIdx.x), thread = threadIdx.x;
    const float4* rows = p.rows + std::int64_t{head} * p.sample.queries;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (std::int32_t i = thread; i < p.sample.queries; i += kScoreThreads) {
        const float4 x = rows[i];
        sum = make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
    }
    sums[thread] = sum;
    __syncthreads();
    for (int half = kScoreThreads / 2; half > 0; half /= 2) {
        if (thread < half) {
            const float4 a = sums[thread], b = sums[thread + half];
            sums[thread] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
        }
        __syncthreads();
    }
    // NaN where no row counts, and for an error that was not asked for.
    if (thread == 0) p.out[head] = make_float2(sums[0].x / sums[0].y, sums[0].z / sums[0].w);
}

}  // namespace

#define PARO_METER(T, D, K)                                                                             \
    PARO_KERNEL(paro_meter_##T##_d##D##_k##K, (kScoreThreads), (const __grid_constant__ MeterParams p), \
                meter_body<T, D, K>(p))
#define PARO_METER_OF(T) PARO_METER(T, 64, 64) PARO_METER(T, 64, 128) PARO_METER(T, 128, 64) PARO_METER(T, 128, 128)
PARO_METER_OF(f16)
PARO_METER_OF(bf16)
PARO_KERNEL(paro_meter_rows_d64, (kScoreThreads), (const __grid_constant__ MeterParams p), meter_rows_body<64>(p))
PARO_KERNEL(paro_meter_rows_d128, (kScoreThreads), (const __grid_constant__ MeterParams p), meter_rows_body<128>(p))
PARO_KERNEL(paro_meter_heads, (kScoreThreads), (const __grid_constant__ MeterParams p), meter_heads_body(p))

}  // namespace paro::cuda
