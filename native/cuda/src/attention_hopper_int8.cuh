// The INT8 block-sparse attention kernel with wgmma. Persistent CTAs take query tiles from a counter, longest first:
// one warpgroup loads queries and key tiles through a ring of bulk copies, each of the others computes 64 query rows.
#pragma once

#include <cstddef>

#include "hopper_ring.cuh"
#include "kernel.cuh"
#include "output.cuh"
#include "softmax_int8.cuh"

namespace paro::cuda {

template <int BLOCK>
using Scores = ScoreTiles<1, BLOCK / 8>;
template <int BLOCK>
using Weights = WeightTiles<1, BLOCK / 8>;
template <int D>
using Sums = std::int32_t[D / 8][4];

#if defined(PARO_SM90A)

// s += q8 k8: asked for, not waited for.
template <int D, int BLOCK>
__device__ __forceinline__ void issue_scores(std::uint64_t q, std::uint64_t k, Scores<BLOCK>& s) {
    fence_registers(s[0]);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < D / 32; ++ks) wgmma_ss(s[0], q + ks * kDescriptorStep, k + ks * kDescriptorStep, true);
    wgmma_commit();
}

template <int D>
struct State {
    float o[1][D / 8][4];
    float l[2], shift[2];  // of this thread's columns only
    Softmax<1> rows;
};

// o takes in the integer sums, which are subnormal numbers as they are.
template <int D>
__device__ __forceinline__ void accumulate_values(State<D>& state, const Sums<D>& sums, const RowFactors<1>& f) {
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float& o = state.o[0][nt][i];
            o = fmaf(__int_as_float(sums[nt][i]), f.beta[0][i / 2], o);
        }
    }
}

// A key tile at a stage of the ring.
struct KeyTile {
    std::int32_t which;  // -1 after the last
    std::uint32_t flags;
    float2 scale;  // of k, of v
};

// A warpgroup that computes 64 query rows. While a tile's scores become weights, o takes in the product of its
// predecessor's: the special-function unit and the others fill each other's gaps, the other warpgroup fills the rest.
template <int D, int BLOCK_Q, int BLOCK, HopperOptions O>
struct Consumer {
    static constexpr HopperPlan P = hopper_plan(D, BLOCK_Q, BLOCK, O.ctas);
    using RingState = PipelineState<P.stages>;
    // Whether the next tile is waited for before the scores of this one, or after: as measured.
    static constexpr bool kEarly = D == 128 && P.stages > 2;
    const AttentionParams& p;
    std::uint32_t info;   // shared address of a TileInfo
    std::uint32_t tiles;  // low half of the descriptor of the ring's first tile
    State<D>& state;
    Trace<O.trace> trace;
    RingState ring;

    // What passes from one key tile to the next: the weights of the last, not yet multiplied.
    struct Pending {
        Weights<BLOCK> weights;
        RowFactors<1> factors;
        int stage;
        std::int32_t which;
    };

    // Descriptors of a stage's keys and values.
    __device__ std::uint64_t keys(int stage) const { return descriptor(stage, 0, D); }
    __device__ std::uint64_t values(int stage) const { return descriptor(stage, P.k_bytes, BLOCK); }
    __device__ std::uint64_t descriptor(int stage, int offset, int row_bytes) const {
        const auto low = tiles + static_cast<std::uint32_t>(stage * (P.stage_bytes / 16) + offset / 16);
        return (tile_descriptor(0, row_bytes) >> 32 << 32) | low;
    }

    __device__ __forceinline__ void release(int stage) { arrive_warp(info + offsetof(TileInfo, empty) + 8 * stage); }

    // The tile at `at`, once it has landed.
    __device__ __forceinline__ KeyTile wait_tile(const RingState& at) const {
        barrier_wait(info + offsetof(TileInfo, full) + 8 * at.stage, at.parity);
        const auto word = load_shared<int4>(info + offsetof(TileInfo, tile) + 16 * at.stage);
        return {word.x, static_cast<std::uint32_t>(word.y), {__int_as_float(word.z), __int_as_float(word.w)}};
    }
    // The tile after the one at `ring`. Asked for long before it is needed.
    __device__ __forceinline__ KeyTile wait_next_tile() const {
        RingState next = ring;
        next.next();
        return wait_tile(next);
    }
    static __device__ __forceinline__ bool has_tile(const KeyTile& tile) {
        return __all_sync(0xffffffffu, tile.which >= 0);
    }

    // sums = weights v of a stage: asked for, not waited for.
    __device__ __forceinline__ void issue_values(int stage, Weights<BLOCK>& weights, Sums<D>& sums) {
        const std::uint64_t v = values(stage);
        fence_registers(weights[0]);
        wgmma_fence();
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) wgmma_rs(sums, weights[0][ks], v + ks * kDescriptorStep, ks > 0);
        wgmma_commit();
    }

    // Waits for the tile's scores, BEHIND groups of products having been asked for after them, and moves the running
    // maxima on: exponents make weights of the scores, factors rescale what was gathered before.
    template <int BEHIND>
    __device__ __forceinline__ void wait_scores(const KeyTile& tile, Scores<BLOCK>& s, Exponents<1>& exponents,
                                                RowFactors<1>& factors) {
        wgmma_wait<BEHIND>();
        fence_registers(s[0]);
        if (tile.flags & kPartial) {
#pragma unroll
            for (int half = 0; half < BLOCK / 64; ++half) {
                const std::uint32_t valid = info + offsetof(TileInfo, valid) + 16 * ring.stage + 8 * half;
                mask_scores<1>(reinterpret_cast<Scores<64>&>(s[0][8 * half]), load_shared<std::uint64_t>(valid));
            }
        }
        std::int32_t greatest[1][2];
        row_max(s[0], greatest[0]);
        const float bias = tile.flags & kPooled ? kPooledBias<BLOCK> : 0.0f;
        update_maxima(state.rows, greatest, tile.scale, bias, exponents, factors);
    }

    // Scores of `tile`, at `ring`, to weights, which become pending.
    __device__ __forceinline__ void scores_to_weights(const KeyTile& tile, Scores<BLOCK>& scores,
                                                      const Exponents<1>& exponents, Pending& pending) {
        // All exponentials, then all bytes: the compiler then spreads the former over what comes before the latter.
#pragma unroll
        for (int w = 0; w < BLOCK / 8; ++w) {
            exponentiate_word(scores[0], w, exponents.factor[0], exponents.offset[0]);
        }
#pragma unroll
        for (int w = 0; w < BLOCK / 8; ++w) pending.weights[0][w / 4][w % 4] = pack_word(scores[0], w);
        reinit_scores(scores);
        accumulate_weights(pending.weights, pending.factors);
        pending.stage = ring.stage;
        pending.which = tile.which;
    }

    // l takes in the sum of the weights.
    __device__ __forceinline__ void accumulate_weights(const Weights<BLOCK>& weights, const RowFactors<1>& f) {
        std::uint32_t sum[2];
        sum_weights<BLOCK / 8>(weights, sum);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            add_weight_sum(state.l[half], state.shift[half], f, 0, half, static_cast<float>(sum[half]));
        }
    }

    // The last pooled key may stand for fewer tokens than the others. It is in the last tile, if anywhere: nothing of
    // this has to stand inside the loop.
    __device__ __forceinline__ void weaken_last_pooled(std::int32_t tile, Weights<BLOCK>& weights,
                                                       const RowFactors<1>& f) {
        const std::int32_t panel = tile - p.kv_blocks.blocks();
        if (panel < 0) return;
        float share;
        const int ragged = ragged_column<BLOCK, BLOCK>(p, panel * BLOCK, share);
        if (ragged < 0) return;
        std::uint32_t before[2], after[2];
        sum_weights<BLOCK / 8>(weights, before);
        scale_column<1, BLOCK / 8>(weights, ragged, share);
        sum_weights<BLOCK / 8>(weights, after);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const auto less = static_cast<float>(before[half] - after[half]);
            state.l[half] -= less * f.unit[0][half];
            state.shift[half] -= less * f.beta[0][half];
        }
    }

    // One step of the loop over key tiles. Returns the tile after `tile`. Nothing of wgmma is under way at its end, or
    // ptxas would serialise all of it.
    __device__ __forceinline__ KeyTile step(std::uint64_t q, const KeyTile& tile, Scores<BLOCK>& scores,
                                            Pending& pending) {
        // Both products: this tile's scores, the last one's values.
        Sums<D> sums;
        KeyTile next = tile;
        issue_scores<D, BLOCK>(q, keys(ring.stage), scores);
        issue_values(pending.stage, pending.weights, sums);

        // Beside them: o takes on the scale that the last tile's maxima gave it.
        const RowFactors<1> last = pending.factors;
        if constexpr (kEarly) next = wait_next_tile();
        rescale(state.o, last);
        trace.template mark<kTraceStart>();

        // Scores to exponents.
        Exponents<1> exponents;
        wait_scores<1>(tile, scores, exponents, pending.factors);
        trace.template mark<kTraceScores>();
        // Where the exponentials begin, before or after the wait for the values, is as measured too.
        const std::int32_t maxima = __float_as_int(exponents.offset[0][0] + exponents.offset[0][1]);
        if constexpr (kEarly) {
            fence_schedule(maxima);
        } else if constexpr (P.stages > 2) {
            next = wait_next_tile();
        }

        // The last tile's values have been multiplied: its stage is free.
        wgmma_wait<0>();
        fence_registers(sums);
        fence_registers(pending.weights[0]);
        trace.template mark<kTraceValues>();
        release(pending.stage);
        if constexpr (P.stages == 2) next = wait_next_tile();  // which waits for the stage just released
        if constexpr (!kEarly) fence_schedule(maxima);

        // o takes in those products; this tile's scores become weights.
        accumulate_values<D>(state, sums, last);
        scores_to_weights(tile, scores, exponents, pending);
        fence_registers(scores[0]);
        ring.next();
        trace.template mark<kTraceSoftmax>();
        return next;
    }

    // All key tiles of a query tile, which `q` describes.
    __device__ __forceinline__ void run(std::uint64_t q) {
        KeyTile tile = wait_tile(ring);
        if (has_tile(tile)) {
            trace.template mark<kTraceBetween>();
            // The first tile: scores to weights.
            Scores<BLOCK> scores;
            Pending pending;
            Exponents<1> exponents;
            init_scores(scores);
            issue_scores<D, BLOCK>(q, keys(ring.stage), scores);
            wait_scores<0>(tile, scores, exponents, pending.factors);
            const KeyTile next = wait_next_tile();
            scores_to_weights(tile, scores, exponents, pending);
            ring.next();
            // Every other one, and the last one's values.
            for (tile = next; has_tile(tile);) tile = step(q, tile, scores, pending);
            drain(pending);
        }
        release(ring.stage);  // which held the word that there are no more
        ring.next();
    }

    __device__ __forceinline__ void drain(Pending& pending) {
        Sums<D> sums;
        weaken_last_pooled(pending.which, pending.weights, pending.factors);
        issue_values(pending.stage, pending.weights, sums);
        rescale(state.o, pending.factors);
        fence_registers(state.o[0]);
        wgmma_wait<0>();
        fence_registers(sums);
        release(pending.stage);
        accumulate_values<D>(state, sums, pending.factors);
    }
};

template <int D>
__device__ __forceinline__ void init_state(const float* q_scale, State<D>& state) {
    const int row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        state.rows.m[0][half] = __int_as_float(0xff800000);
        state.rows.q_scale[0][half] = q_scale[half * 8 + row];
        state.l[half] = state.shift[half] = 0.0f;
    }
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) state.o[0][nt][i] = 0.0f;
    }
}

__device__ __forceinline__ float sum_of_four(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// o / l, times the factors per channel of v.
template <int D>
__device__ __forceinline__ void normalise(const float* channel, State<D>& state) {
    float inverse[2], shift[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        inverse[half] = 1.0f / sum_of_four(state.l[half]);
        shift[half] = sum_of_four(state.shift[half]) * kShiftDown;
    }
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
        const float2 factor = *reinterpret_cast<const float2*>(channel + nt * 8 + threadIdx.x % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float& o = state.o[0][nt][i];
            o = fmaf(o, kSumsUp, -shift[i / 2]) * (inverse[i / 2] * (i % 2 ? factor.y : factor.x));
        }
    }
}

// A warpgroup's query tiles, one after another.
template <int D, int BLOCK_Q, int BLOCK, HopperOptions O>
__device__ __forceinline__ void run_consumer(const AttentionParams& p, TileInfo& info, std::uint32_t queries,
                                             std::uint32_t ring, unsigned char* output, int group) {
    constexpr HopperPlan P = hopper_plan(D, BLOCK_Q, BLOCK, O.ctas);
    const int warp = threadIdx.x % kWarpgroupThreads / 32, row = group * kWarpgroupRows + warp * 16;
    State<D> state;
    // From one lane: ptxas would otherwise make them again in every step.
    const std::uint32_t base = __shfl_sync(0xffffffffu, shared_address(&info), 0);
    const auto tiles = static_cast<std::uint32_t>(tile_descriptor(ring, D));
    Consumer<D, BLOCK_Q, BLOCK, O> consumer{p, base, __shfl_sync(0xffffffffu, tiles, 0), state, {}, {}};
    consumer.trace.start();
    for (PipelineState<kQueryStages> next_queries;; next_queries.next()) {
        // The next work item and its queries.
        const int s = next_queries.stage;
        barrier_wait(shared_address(&info.queries_full[s]), next_queries.parity);
        const std::int32_t item = __shfl_sync(0xffffffffu, info.item[s], 0);
        if (item < 0) break;
        std::int32_t slot, tile;
        p.work_item(item, slot, tile);
        const std::int64_t first = (std::int64_t{slot} * p.q_blocks.blocks() + tile) * p.q_blocks.block;
        init_state<D>(p.packed.q_scale + first + row, state);

        // Its key tiles.
        consumer.run(tile_descriptor(queries + s * P.q_bytes + group * kWarpgroupRows * D, D));
        arrive_warp(shared_address(&info.queries_empty[s]));

        // o.
        normalise<D>(p.packed.channel + std::int64_t{slot} * D, state);
        const std::int64_t offset = output_offset(p, slot, tile, row + threadIdx.x % 16);
        store_output<D, 1>(p, state.o, offset, output + (group * 4 + warp) * P.output_bytes);
    }
    if (threadIdx.x % kWarpgroupThreads == 0) consumer.trace.flush(group);
}

#endif

template <int D, int BLOCK_Q, int BLOCK, HopperOptions O>
__device__ __forceinline__ void attention_hopper_int8_body(const AttentionParams& p) {
#if defined(PARO_SM90A)
    constexpr HopperPlan P = hopper_plan(D, BLOCK_Q, BLOCK, O.ctas);
    constexpr int consumers = BLOCK_Q / kWarpgroupRows;
    PARO_DYNAMIC_SHARED(shared);
    const std::uint32_t queries = shared_address(shared) + P.queries, ring = queries + P.ring;
    unsigned char* output = shared + P.output;
    TileInfo& info = *reinterpret_cast<TileInfo*>(output + (P.info - P.output));

    // Barriers.
    if (threadIdx.x == 0) {
        for (int s = 0; s < kQueryStages; ++s) {
            barrier_init(shared_address(&info.queries_full[s]), 1);
            barrier_init(shared_address(&info.queries_empty[s]), consumers * kArrivals);
        }
        for (int s = 0; s < P.stages; ++s) {
            barrier_init(shared_address(&info.full[s]), 1);
            barrier_init(shared_address(&info.empty[s]), consumers * kArrivals);
        }
        fence_barrier_init();
    }
    __syncthreads();

    // Roles: the first warpgroup loads, the others compute. From one lane, so that the compiler knows the group to be
    // the same in a warp.
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0) - 1;
    if (group < 0) {
        decrease_registers<P.producer>();
        if (threadIdx.x == 0) Producer<D, BLOCK, P>{p, info, queries, ring, {}}.run();
    } else {
        increase_registers<P.consumer>();
        run_consumer<D, BLOCK_Q, BLOCK, O>(p, info, queries, ring, output, group);
    }
#else
    __trap();  // compiled without sm_90a
#endif
}

// The kernel `name` for these sizes; its options are those of hopper_plan and of best_options.
#define PARO_HOPPER_KERNEL(name, D, Q, K, ...)                                                \
    PARO_KERNEL(name, (hopper_plan(D, Q, K, (__VA_ARGS__).ctas).threads, (__VA_ARGS__).ctas), \
                (const __grid_constant__ AttentionParams p), attention_hopper_int8_body<D, Q, K, (__VA_ARGS__)>(p))
#define PARO_HOPPER_INSTANCE(D, Q, K) \
    PARO_HOPPER_KERNEL(paro_attention_hopper_int8_d##D##_q##Q##_k##K, D, Q, K, best_options(D, Q, K))
// All of a head_dim.
#define PARO_HOPPER_INSTANCES(D)    \
    PARO_HOPPER_INSTANCE(D, 64, 64) \
    PARO_HOPPER_INSTANCE(D, 64, 128) PARO_HOPPER_INSTANCE(D, 128, 64) PARO_HOPPER_INSTANCE(D, 128, 128)

}  // namespace paro::cuda
