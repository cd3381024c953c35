// The INT8 block-sparse attention kernel with wgmma. Persistent CTAs take query tiles from a counter, longest first:
// one warpgroup brings queries and key tiles through a ring of bulk copies, each of the others owns 64 query rows.
#pragma once

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

// Asks for s = round_bits + q8 k8.
template <int D, int BLOCK>
__device__ __forceinline__ void start_scores(std::uint64_t q, std::uint64_t k, Scores<BLOCK>& s) {
#pragma unroll
    for (int nt = 0; nt < BLOCK / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[0][nt][i] = kRoundBits;
    }
    hold(s[0]);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < D / 32; ++ks) wgmma_ss(s[0], q + ks * kDescriptorStep, k + ks * kDescriptorStep, true);
    wgmma_commit();
}

template <int D>
struct State {
    float o[1][D / 8][4];
    float l[2];  // of this thread's columns only
    Softmax<1> rows;
};

// Most of the time no row of a warp has a new maximum: o then keeps its scale.
template <int D>
__device__ __forceinline__ void rescale(State<D>& state, const RowFactors<1>& f) {
    const bool same = f.alpha[0][0] == 1.0f && f.alpha[0][1] == 1.0f;
    if (__all_sync(0xffffffffu, same)) return;
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) state.o[0][nt][i] *= f.alpha[0][i / 2];
    }
}

// o takes in the integer sums.
template <int D>
__device__ __forceinline__ void add_values(State<D>& state, const Sums<D>& sums, const RowFactors<1>& f) {
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float& o = state.o[0][nt][i];
            o = fmaf(static_cast<float>(sums[nt][i]), f.beta[0][i / 2], o);
        }
    }
}

template <int D, int BLOCK, int GROUPS, HopperOptions O>
struct Consumer {
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    const AttentionParams& p;
    StageInfo& info;
    std::uint32_t ring;
    int group;
    State<D>& state;
    Trace<O.trace> trace;
    Turn<P::stages> turn;
    std::uint64_t q;  // descriptor

    __device__ std::uint64_t keys(int stage) const { return tile_descriptor(ring + stage * P::stage_bytes, D); }

    __device__ __forceinline__ void release(int stage) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&info.empty[stage]));
    }

    // Between these two a warpgroup asks for products while the other is at its softmax.
    __device__ __forceinline__ void take_turn() {
        if constexpr (O.in_turns) named_sync(1 + group, GROUPS * kGroup);
    }
    __device__ __forceinline__ void pass_turn() {
        if constexpr (O.in_turns) named_arrive(2 - group, GROUPS * kGroup);
    }

    // Asks for the products of the weights of keys 32 ks .. and the values at `stage`.
    __device__ __forceinline__ void start_values(int stage, int ks, Weights<BLOCK>& weights, Sums<D>& sums) {
        const std::uint64_t v = tile_descriptor(ring + stage * P::stage_bytes + P::k_bytes, BLOCK);
        wgmma_rs(sums, weights[0][ks], v + ks * kDescriptorStep, ks > 0);
    }
    __device__ __forceinline__ void start_values(int stage, Weights<BLOCK>& weights, Sums<D>& sums) {
        hold(weights[0]);
        wgmma_fence();
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) start_values(stage, ks, weights, sums);
        wgmma_commit();
    }

    // Scores of the stage to weights; slower where not every key counts the same. With O.early also asks for their
    // products with the values, 32 keys at a time.
    __device__ __forceinline__ void weigh(int stage, Scores<BLOCK>& s, Weights<BLOCK>& weights, RowFactors<1>& factors,
                                          Sums<D>& sums) {
        constexpr int tiles = BLOCK / 8;
        const std::uint64_t valid[2] = {info.valid[stage][0], info.valid[stage][1]};
        const std::int32_t panel = info.tile[stage] - p.kv_blocks.blocks();
        const bool plain = (valid[0] & (BLOCK == 128 ? valid[1] : valid[0])) == ~std::uint64_t{0};
        const bool masked = !plain || panel >= 0;
        if (!plain) mask_scores<1, tiles>(s, valid);
        Exponents<1> exponents;
        const float bias = panel < 0 ? 0.0f : BLOCK == 64 ? 6.0f : 7.0f;
        find_maxima<1, tiles>(state.rows, s, info.scale[stage][info.odd[stage]], bias, exponents, factors);
        float share = 1.0f;
        const int ragged = panel < 0 ? -1 : ragged_column<BLOCK, BLOCK>(p, panel * BLOCK, share);
        std::uint32_t sum[2] = {0, 0};
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) {
            weigh_keys<1, tiles, O.weights>(s, ks, exponents, weights);
            if (masked) mask_weights<1, tiles>(weights, ks, valid, ragged, share);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i % 2] = __dp4a(weights[0][ks][i], 0x01010101u, sum[i % 2]);
            if constexpr (O.early) {
                hold_operand(weights[0][ks]);
                wgmma_fence();
                start_values(stage, ks, weights, sums);
            }
        }
        if constexpr (O.early) wgmma_commit();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            state.l[half] =
                fmaf(state.l[half], factors.alpha[0][half], static_cast<float>(sum[half]) * factors.unit[0][half]);
        }
    }

    // Whether there is a tile at the turn's stage; waits for it.
    __device__ __forceinline__ bool arrived() {
        barrier_wait(shared_address(&info.full[turn.stage]), turn.parity);
        return __all_sync(0xffffffffu, info.tile[turn.stage] >= 0);
    }

    // Attends to the tile whose scores are in `mine`, while the next tile's come into `next`. False after the last.
    __device__ __forceinline__ bool step(Scores<BLOCK>& mine, Scores<BLOCK>& next) {
        const int stage = turn.stage;
        turn.next();
        const bool more = arrived();
        trace.template mark<kTraceKeys>();
        // After the last tile a stale one is multiplied, for nothing: wgmma wants no branches around it.
        start_scores<D, BLOCK>(q, keys(turn.stage), next);
        Weights<BLOCK> weights;
        RowFactors<1> factors;
        Sums<D> sums;
        weigh(stage, mine, weights, factors, sums);
        trace.template mark<kTraceSoftmax>();
        if constexpr (!O.early) start_values(stage, weights, sums);
        rescale<D>(state, factors);
        hold(state.o[0]);  // before the wait, not after
        wgmma_wait<0>();
        hold(sums);
        hold(next[0]);
        trace.template mark<kTraceScores>();
        release(stage);
        add_values<D>(state, sums, factors);
        trace.template mark<kTraceAdd>();
        return more;
    }

    // Softmax of this tile beside the scores of the next.
    __device__ __forceinline__ void run_ahead() {
        Scores<BLOCK> even, odd;
        start_scores<D, BLOCK>(q, keys(turn.stage), even);
        wgmma_wait<0>();
        hold(even[0]);
        while (step(even, odd) && step(odd, even)) {
        }
    }

    // One set of scores: what o takes in of this tile beside the scores of the next. The other warpgroup fills the
    // gaps.
    __device__ __forceinline__ void run_behind() {
        Scores<BLOCK> scores;
        Weights<BLOCK> weights;
        RowFactors<1> factors;
        Sums<D> sums;
        take_turn();
        start_scores<D, BLOCK>(q, keys(turn.stage), scores);
        pass_turn();
        wgmma_wait<0>();
        hold(scores[0]);
        for (bool more = true; more;) {
            const int stage = turn.stage;
            trace.template mark<kTraceScores>();
            weigh(stage, scores, weights, factors, sums);
            trace.template mark<kTraceSoftmax>();
            turn.next();
            if constexpr (O.in_turns) more = arrived();
            take_turn();
            trace.template mark<kTraceTurn>();
            if constexpr (!O.early) start_values(stage, weights, sums);
            if constexpr (!O.in_turns) more = arrived();
            trace.template mark<kTraceKeys>();
            start_scores<D, BLOCK>(q, keys(turn.stage), scores);  // a stale tile's after the last
            pass_turn();
            rescale<D>(state, factors);
            wgmma_wait<1>();
            hold(sums);
            trace.template mark<kTraceValues>();
            release(stage);
            add_values<D>(state, sums, factors);
            hold(state.o[0]);  // before the wait, not after
            trace.template mark<kTraceAdd>();
            wgmma_wait<0>();
            hold(scores[0]);
        }
    }

    // All key tiles of a query tile, which `queries` describes.
    __device__ __forceinline__ void run(std::uint64_t queries) {
        q = queries;
        if (arrived()) {
            trace.template mark<kTraceBetween>();
            if constexpr (O.ahead) {
                run_ahead();
            } else {
                run_behind();
            }
        }
        release(turn.stage);  // which held the word that there are no more
        turn.next();
    }
};

template <int D>
__device__ __forceinline__ void start(const float* q_scale, State<D>& state) {
    const int row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        state.rows.m[0][half] = __int_as_float(0xff800000);
        state.rows.q_scale[0][half] = q_scale[half * 8 + row];
        state.l[half] = 0.0f;
    }
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) state.o[0][nt][i] = 0.0f;
    }
}

// o / l, times the factors per channel of v.
template <int D>
__device__ __forceinline__ void finish(const float* channel, State<D>& state) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float l = state.l[half];
        l += __shfl_xor_sync(0xffffffffu, l, 1);
        l += __shfl_xor_sync(0xffffffffu, l, 2);
        inverse[half] = 1.0f / l;
    }
#pragma unroll
    for (int nt = 0; nt < D / 8; ++nt) {
        const float2 factor = *reinterpret_cast<const float2*>(channel + nt * 8 + threadIdx.x % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) state.o[0][nt][i] *= inverse[i / 2] * (i % 2 ? factor.y : factor.x);
    }
}

// A warpgroup's query tiles, one after another.
template <int D, int BLOCK, int GROUPS, HopperOptions O>
__device__ __forceinline__ void consume(const AttentionParams& p, StageInfo& info, std::uint32_t q_shared,
                                        std::uint32_t ring, unsigned char* staging, int group) {
    using P = HopperPlan<D, BLOCK, GROUPS, O.ctas>;
    const int warp = threadIdx.x % kGroup / 32, row = group * kHopperRows + warp * 16;
    State<D> state;
    Consumer<D, BLOCK, GROUPS, O> consumer{p, info, ring, group, state, {}, {}, 0};
    if (O.in_turns && group == 1) consumer.pass_turn();
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
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&info.queries_empty[s]));
        finish<D>(p.packed.channel + std::int64_t{slot} * D, state);
        const std::int64_t offset = output_offset(p, slot, tile, row + threadIdx.x % 16);
        store_output<D, 1>(p, state.o, offset, staging + (group * 4 + warp) * P::staging_bytes);
    }
    if (O.in_turns && group == 0) consumer.take_turn();  // which the other passed on last
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
            barrier_init(shared_address(&info.queries_empty[s]), GROUPS * 4);
        }
        for (int s = 0; s < P::stages; ++s) {
            barrier_init(shared_address(&info.full[s]), 1);
            barrier_init(shared_address(&info.empty[s]), GROUPS * 4);
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
    static_assert(!O.in_turns || (GROUPS == 2 && !O.ahead && !O.early));
    check(cudaMemsetAsync(p.packed.counters + p.slots(), 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
    const int room = multiprocessors() * O.ctas;
    launch_kernel("attention_hopper_int8_kernel", attention_hopper_int8_kernel<D, BLOCK, GROUPS, encode(O)>,
                  room < p.work_items() ? room : p.work_items(), P::threads, P::bytes, stream, p);
}

}  // namespace paro::cuda
