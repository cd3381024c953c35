// The INT8 block-sparse attention kernel with wgmma. Persistent CTAs take query tiles from a counter, longest first:
// one warpgroup brings queries and key tiles through a ring of bulk copies, each of the others owns 64 query rows.
#pragma once

#include <cstddef>

#include "hopper_ring.cuh"
#include "launch_kernel.h"
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

// s += q8 k8.
template <int D, int BLOCK>
__device__ __forceinline__ void start_scores(std::uint64_t q, std::uint64_t k, Scores<BLOCK>& s) {
    hold(s[0]);
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
__device__ __forceinline__ void add_values(State<D>& state, const Sums<D>& sums, const RowFactors<1>& f) {
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
    float2 scale;
};

template <int D, int BLOCK, int GROUPS, HopperOptions O>
struct Consumer {
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    // Whether the tile after a step's is looked for before the wait for its scores, or after: as measured.
    static constexpr bool kEarly = D == 128 && P::stages > 2;
    const AttentionParams& p;
    std::uint32_t base;  // of a StageInfo, in shared memory
    std::uint32_t ring;  // low half of its descriptor
    State<D>& state;
    Trace<O.trace> trace;
    Turn<P::stages> turn;

    __device__ std::uint64_t keys(int stage) const { return tile(stage, 0, D); }
    __device__ std::uint64_t values(int stage) const { return tile(stage, P::k_bytes, BLOCK); }
    __device__ std::uint64_t tile(int stage, int offset, int row_bytes) const {
        const auto low = ring + static_cast<std::uint32_t>(stage * (P::stage_bytes / 16) + offset / 16);
        return (tile_descriptor(0, row_bytes) >> 32 << 32) | low;
    }

    __device__ __forceinline__ void release(int stage) { arrive_warp(base + offsetof(StageInfo, empty) + 8 * stage); }

    // The tile at the turn's stage; waits for it. Asked for long before it is needed.
    __device__ __forceinline__ KeyTile tile_at(const Turn<P::stages>& turn) const {
        barrier_wait(base + offsetof(StageInfo, full) + 8 * turn.stage, turn.parity);
        const auto word = load_shared<int4>(base + offsetof(StageInfo, tile) + 16 * turn.stage);
        return {word.x, static_cast<std::uint32_t>(word.y), {__int_as_float(word.z), __int_as_float(word.w)}};
    }
    static __device__ __forceinline__ Turn<P::stages> after(Turn<P::stages> turn) {
        turn.next();
        return turn;
    }
    __device__ __forceinline__ KeyTile tile_after() const { return tile_at(after(turn)); }
    static __device__ __forceinline__ bool there(const KeyTile& tile) {
        return __all_sync(0xffffffffu, tile.which >= 0);
    }

    // Asks for the products of weights and the values at `stage`.
    __device__ __forceinline__ void start_values(int stage, Weights<BLOCK>& weights, Sums<D>& sums) {
        const std::uint64_t v = values(stage);
        hold(weights[0]);
        wgmma_fence();
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) wgmma_rs(sums, weights[0][ks], v + ks * kDescriptorStep, ks > 0);
        wgmma_commit();
    }

    // What makes weights of the tile's scores, once they are there; BEHIND groups of products follow theirs.
    template <int BEHIND>
    __device__ __forceinline__ void look(const KeyTile& tile, Scores<BLOCK>& s, Exponents<1>& exponents,
                                         RowFactors<1>& factors) {
        wgmma_wait<BEHIND>();
        hold(s[0]);
        if (tile.flags & kSome) {
#pragma unroll
            for (int half = 0; half < BLOCK / 64; ++half) {
                const std::uint32_t valid = base + offsetof(StageInfo, valid) + 16 * turn.stage + 8 * half;
                mask_scores<1>(reinterpret_cast<Scores<64>&>(s[0][8 * half]), load_shared<std::uint64_t>(valid));
            }
        }
        std::int32_t greatest[1][2];
        greatest_of(s[0], greatest[0]);
        const float bias = tile.flags & kPooled ? kPooledBias<BLOCK> : 0.0f;
        move_maxima(state.rows, greatest, tile.scale, bias, exponents, factors);
    }

    __device__ __forceinline__ void add_weights(const Weights<BLOCK>& weights, const RowFactors<1>& f) {
        std::uint32_t sum[2];
        sum_weights<BLOCK / 8>(weights, sum);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            add_weight_sum(state.l[half], state.shift[half], f, 0, half, static_cast<float>(sum[half]));
        }
    }

    // The last pooled key may stand for fewer tokens than the others. It is in the last tile, if anywhere: nothing of
    // this has to stand inside the loop.
    __device__ __forceinline__ void share_last(std::int32_t tile, Weights<BLOCK>& weights, const RowFactors<1>& f) {
        const std::int32_t panel = tile - p.kv_blocks.blocks();
        if (panel < 0) return;
        float share;
        const int ragged = ragged_column<BLOCK, BLOCK>(p, panel * BLOCK, share);
        if (ragged < 0) return;
        std::uint32_t before[2], after[2];
        sum_weights<BLOCK / 8>(weights, before);
        share_weights<1, BLOCK / 8>(weights, ragged, share);
        sum_weights<BLOCK / 8>(weights, after);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const auto less = static_cast<float>(before[half] - after[half]);
            state.l[half] -= less * f.unit[0][half];
            state.shift[half] -= less * f.beta[0][half];
        }
    }

    // What passes from one key tile to the next: the weights of the last, not yet multiplied.
    struct Pending {
        Weights<BLOCK> weights;
        RowFactors<1> factors;
        int stage;
        std::int32_t which;
    };

    // Scores of `tile`, at the turn's stage, to weights, which become pending.
    __device__ __forceinline__ void weigh(const KeyTile& tile, Scores<BLOCK>& scores, const Exponents<1>& exponents,
                                          Pending& pending) {
        // In two turns: the compiler then spreads the exponentials over what comes before the bytes.
#pragma unroll
        for (int w = 0; w < BLOCK / 8; ++w) raise_word(scores[0], w, exponents.factor[0], exponents.offset[0]);
#pragma unroll
        for (int w = 0; w < BLOCK / 8; ++w) pending.weights[0][w / 4][w % 4] = join_word(scores[0], w);
        preset_again(scores);
        add_weights(pending.weights, pending.factors);
        pending.stage = turn.stage;
        pending.which = tile.which;
    }

    // The scores of `tile` and the products of the pending weights are asked for; those scores become weights, while o
    // takes in those products. Returns the tile after this.
    __device__ __forceinline__ KeyTile step(std::uint64_t q, const KeyTile& tile, Scores<BLOCK>& scores,
                                            Pending& pending) {
        Sums<D> sums;
        KeyTile next = tile;
        start_scores<D, BLOCK>(q, keys(turn.stage), scores);
        start_values(pending.stage, pending.weights, sums);
        const RowFactors<1> last = pending.factors;
        if constexpr (kEarly) next = tile_after();
        rescale(state.o, last);
        trace.template mark<kTraceStart>();
        Exponents<1> exponents;
        look<1>(tile, scores, exponents, pending.factors);
        trace.template mark<kTraceScores>();
        // Where the block of the softmax begins, before or after the wait for the values, is as measured too.
        const std::int32_t looked = __float_as_int(exponents.offset[0][0] + exponents.offset[0][1]);
        if constexpr (kEarly) {
            pin(looked);
        } else if constexpr (P::stages > 2) {
            next = tile_after();
        }
        wgmma_wait<0>();
        hold(sums);
        hold(pending.weights[0]);
        trace.template mark<kTraceValues>();
        release(pending.stage);
        if constexpr (P::stages == 2) next = tile_after();  // which waits for the stage just released
        if constexpr (!kEarly) pin(looked);
        add_values<D>(state, sums, last);
        weigh(tile, scores, exponents, pending);
        hold(scores[0]);
        turn.next();
        trace.template mark<kTraceSoftmax>();
        return next;
    }

    // All key tiles of a query tile, which `q` describes. While a tile's scores become weights, o takes in its
    // predecessor's product: the special-function unit and the others fill each other's gaps, the other warpgroup fills
    // the rest. Nothing of wgmma is under way at the end of a step, or ptxas would serialise all of it.
    __device__ __forceinline__ void run(std::uint64_t q) {
        KeyTile tile = tile_at(turn);
        if (there(tile)) {
            trace.template mark<kTraceBetween>();
            Scores<BLOCK> scores;
            Pending pending;
            Exponents<1> exponents;
            preset(scores);
            start_scores<D, BLOCK>(q, keys(turn.stage), scores);
            look<0>(tile, scores, exponents, pending.factors);
            const KeyTile next = tile_after();
            weigh(tile, scores, exponents, pending);
            turn.next();
            for (tile = next; there(tile);) tile = step(q, tile, scores, pending);
            finish_values(pending);
        }
        release(turn.stage);  // which held the word that there are no more
        turn.next();
    }

    __device__ __forceinline__ void finish_values(Pending& pending) {
        Sums<D> sums;
        share_last(pending.which, pending.weights, pending.factors);
        start_values(pending.stage, pending.weights, sums);
        rescale(state.o, pending.factors);
        hold(state.o[0]);
        wgmma_wait<0>();
        hold(sums);
        release(pending.stage);
        add_values<D>(state, sums, pending.factors);
    }
};

template <int D>
__device__ __forceinline__ void start(const float* q_scale, State<D>& state) {
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
__device__ __forceinline__ void finish(const float* channel, State<D>& state) {
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
template <int D, int BLOCK, int GROUPS, HopperOptions O>
__device__ __forceinline__ void consume(const AttentionParams& p, StageInfo& info, std::uint32_t q_shared,
                                        std::uint32_t ring, unsigned char* staging, int group) {
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    const int warp = threadIdx.x % kGroup / 32, row = group * kHopperRows + warp * 16;
    State<D> state;
    // From one lane: ptxas would otherwise make them again in every step.
    const std::uint32_t base = __shfl_sync(0xffffffffu, shared_address(&info), 0);
    const std::uint32_t tiles = __shfl_sync(0xffffffffu, static_cast<std::uint32_t>(tile_descriptor(ring, D)), 0);
    Consumer<D, BLOCK, GROUPS, O> consumer{p, base, tiles, state, {}, {}};
    consumer.trace.start();
    for (Turn<kQueryStages> queries;; queries.next()) {
        const int s = queries.stage;
        barrier_wait(shared_address(&info.queries_full[s]), queries.parity);
        const std::int32_t item = __shfl_sync(0xffffffffu, info.item[s], 0);
        if (item < 0) break;
        std::int32_t slot, tile;
        p.work_item(item, slot, tile);
        start<D>(p.packed.q_scale + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * p.q_blocks.block + row, state);
        consumer.run(tile_descriptor(q_shared + s * P::q_bytes + group * kHopperRows * D, D));
        arrive_warp(shared_address(&info.queries_empty[s]));
        finish<D>(p.packed.channel + std::int64_t{slot} * D, state);
        const std::int64_t offset = output_offset(p, slot, tile, row + threadIdx.x % 16);
        store_output<D, 1>(p, state.o, offset, staging + (group * 4 + warp) * P::staging_bytes);
    }
    if (threadIdx.x % kGroup == 0) consumer.trace.flush(group);
}

#endif

template <int D, int BLOCK, int GROUPS, unsigned CODE>
__global__ void __launch_bounds__((GROUPS + 1) * kGroup, decode(CODE).ctas)
    attention_hopper_int8_kernel(const __grid_constant__ AttentionParams p) {
#if defined(PARO_SM90A)
    constexpr HopperOptions O = decode(CODE);
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    PARO_DYNAMIC_SHARED(shared);
    const std::uint32_t q_shared = shared_address(shared), ring = q_shared + kQueryStages * P::q_bytes;
    unsigned char* staging = shared + kQueryStages * P::q_bytes + P::stages * P::stage_bytes;
    StageInfo& info = *reinterpret_cast<StageInfo*>(staging + GROUPS * 4 * P::staging_bytes);
    if (threadIdx.x == 0) {
        for (int s = 0; s < kQueryStages; ++s) {
            barrier_init(shared_address(&info.queries_full[s]), 1);
            barrier_init(shared_address(&info.queries_empty[s]), GROUPS * kArrivals);
        }
        for (int s = 0; s < P::stages; ++s) {
            barrier_init(shared_address(&info.full[s]), 1);
            barrier_init(shared_address(&info.empty[s]), GROUPS * kArrivals);
        }
        fence_barrier_init();
    }
    __syncthreads();
    // -1: the producer's. From one lane, so that the compiler knows it to be the same in a warp.
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kGroup, 0) - 1;
    if (group < 0) {
        give_registers<P::producer>();
        if (threadIdx.x == 0) Producer<D, BLOCK, P>{p, info, q_shared, ring, {}}.run();
    } else {
        take_registers<P::consumer>();
        consume<D, BLOCK, GROUPS, O>(p, info, q_shared, ring, staging, group);
    }
#else
    __trap();  // compiled without sm_90a
#endif
}

template <int D, int BLOCK, int GROUPS, HopperOptions O>
void launch_hopper(const AttentionParams& p, cudaStream_t stream) {
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    check(cudaMemsetAsync(p.packed.counters + p.slots(), 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
    const int room = multiprocessors() * O.ctas;
    launch_kernel("attention_hopper_int8_kernel", attention_hopper_int8_kernel<D, BLOCK, GROUPS, encode(O)>,
                  room < p.work_items() ? room : p.work_items(), P::threads, P::bytes, stream, p);
}

}  // namespace paro::cuda
