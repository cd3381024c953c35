// INT8 block-sparse attention with wgmma, for sm_90a. Persistent CTAs take query tiles from a counter, longest first:
// one warpgroup brings queries and key tiles through a ring of bulk copies, each of the others owns 64 query rows. The
// products of the next key tile run while the softmax of this one does, and the next query tile's keys are on their way
// while this one's output is written.
#include "launch_kernel.h"
#include "output.cuh"
#include "paro/cuda/launch.h"
#include "ptx_hopper.cuh"
#include "softmax_int8.cuh"
#include "tile_walk.cuh"

namespace paro::cuda {
namespace {

constexpr int kRows = 64;  // query rows of a warpgroup
constexpr int kMaxStages = 8;
constexpr int kGroup = 128;  // threads of a warpgroup

// What goes with a stage of the ring.
struct StageInfo {
    float2 scale[kMaxStages][2];  // of an even key tile and the next: copies come in 16 bytes
    std::uint64_t valid[kMaxStages][2];
    std::int32_t tile[kMaxStages];  // -1 after the last of a query tile
    std::int32_t odd[kMaxStages];   // which of the two scales
    std::int32_t item;              // work item whose queries have come, -1 after the last
    // Barriers; the last two are for the queries and the item.
    std::uint64_t full[kMaxStages], empty[kMaxStages], queries_full, queries_empty;
};

// Shared memory of a CTA, in this order.
template <int D, int BLOCK, int GROUPS>
struct Plan {
    static constexpr int q_bytes = GROUPS * kRows * D, k_bytes = BLOCK * D, stage_bytes = 2 * k_bytes;
    static constexpr int staging_bytes = 16 * (2 * D + 16);  // of a warp
    static constexpr int fixed = q_bytes + GROUPS * 4 * staging_bytes + static_cast<int>(sizeof(StageInfo));
    static constexpr int ctas = GROUPS == 1 ? 2 : 1;  // on a multiprocessor
    static constexpr int budget = (227 << 10) / ctas - 1024;
    static constexpr int room = (budget - fixed) / stage_bytes;
    static constexpr int stages = room < kMaxStages ? room : kMaxStages;
    static constexpr int bytes = fixed + stages * stage_bytes;
    static_assert(stages >= 2);
};

template <int BLOCK>
using Scores = ScoreTiles<1, BLOCK / 8>;
template <int BLOCK>
using Weights = WeightTiles<1, BLOCK / 8>;
template <int D>
using Sums = std::int32_t[D / 8][4];

#if defined(PARO_SM90A)

// A counter that runs round the ring.
template <int STAGES>
struct Turn {
    int stage = 0;
    std::uint32_t parity = 0;
    __device__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// One thread: for each work item its queries, then every key tile of its mask row, then the word that there are no
// more.
template <int D, int BLOCK, int GROUPS>
struct Producer {
    using P = Plan<D, BLOCK, GROUPS>;
    const AttentionParams& p;
    StageInfo& info;
    std::uint32_t q_shared, ring;
    Turn<P::stages> turn;

    __device__ void wait_empty() const { barrier_wait(shared_address(&info.empty[turn.stage]), turn.parity ^ 1); }

    __device__ void bring(const TileWalk<BLOCK>& walk, std::int64_t first, std::int32_t tile) {
        const std::uint64_t low = walk.columns(tile, 0), high = BLOCK == 128 ? walk.columns(tile, 1) : 0;
        if ((low | high) == 0) return;
        wait_empty();
        const int s = turn.stage;
        const std::int64_t at = first + tile;
        info.valid[s][0] = low;
        info.valid[s][1] = high;
        info.tile[s] = tile;
        info.odd[s] = static_cast<std::int32_t>(at & 1);
        const std::uint32_t full = shared_address(&info.full[s]), to = ring + s * P::stage_bytes;
        barrier_expect(full, P::stage_bytes + 16);
        copy_bulk(to, p.packed.k + at * P::k_bytes, P::k_bytes, full);
        copy_bulk(to + P::k_bytes, p.packed.v + at * P::k_bytes, P::k_bytes, full);
        copy_bulk(shared_address(&info.scale[s][0]), p.packed.kv_scale + (at & ~std::int64_t{1}), 16, full);
        turn.next();
    }

    __device__ void run() {
        const std::uint32_t full = shared_address(&info.queries_full), empty = shared_address(&info.queries_empty);
        for (std::uint32_t parity = 1;; parity ^= 1) {
            const std::int32_t item = atomicAdd(p.packed.counters + p.slots(), 1);
            barrier_wait(empty, parity);
            if (item >= p.work_items()) break;
            std::int32_t slot, tile;
            p.work_item(item, slot, tile);
            info.item = item;
            barrier_expect(full, P::q_bytes);
            const std::int64_t at = std::int64_t{slot} * p.q_blocks.blocks() + tile;
            copy_bulk(q_shared, p.packed.q + at * P::q_bytes, P::q_bytes, full);
            const bool in_grid = p.q_blocks.is_grid(tile);
            TileWalk<BLOCK> walk(p, in_grid ? p.mask_row(slot % p.heads, tile) : nullptr);
            const std::int64_t first = std::int64_t{slot} * p.key_tiles();
            for (std::int32_t next = walk.next_tile(); next >= 0; next = walk.next_tile()) bring(walk, first, next);
            wait_empty();
            info.tile[turn.stage] = -1;
            barrier_arrive(shared_address(&info.full[turn.stage]));
            turn.next();
        }
        info.item = -1;
        barrier_arrive(full);
    }
};

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

// Scores of the stage to weights; slower where not every key counts the same.
template <int BLOCK, int D>
__device__ __forceinline__ void weigh(const AttentionParams& p, const StageInfo& info, int stage, State<D>& state,
                                      Scores<BLOCK>& s, Weights<BLOCK>& weights, RowFactors<1>& factors) {
    constexpr int tiles = BLOCK / 8;
    const std::uint64_t valid[2] = {info.valid[stage][0], info.valid[stage][1]};
    const std::int32_t panel = info.tile[stage] - p.kv_blocks.blocks();
    const bool plain = (valid[0] & (BLOCK == 128 ? valid[1] : valid[0])) == ~std::uint64_t{0};
    if (!plain) mask_scores<1, tiles>(s, valid);
    const float2 scale = info.scale[stage][info.odd[stage]];
    softmax<1, tiles>(state.rows, s, scale, panel < 0 ? 0.0f : BLOCK == 64 ? 6.0f : 7.0f, weights, factors);
    if (!plain || panel >= 0) {
        float share = 1.0f;
        const int ragged = panel < 0 ? -1 : ragged_column<BLOCK, BLOCK>(p, panel * BLOCK, share);
        mask_weights<1, tiles>(weights, valid, ragged, share);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        std::uint32_t sum = 0;
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) {
            sum = __dp4a(weights[0][ks][half], 0x01010101u, sum);
            sum = __dp4a(weights[0][ks][half + 2], 0x01010101u, sum);
        }
        state.l[half] = fmaf(state.l[half], factors.alpha[0][half], static_cast<float>(sum) * factors.unit[0][half]);
    }
}

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

template <int D, int BLOCK, int GROUPS>
struct Consumer {
    using P = Plan<D, BLOCK, GROUPS>;
    const AttentionParams& p;
    StageInfo& info;
    std::uint32_t ring;
    std::uint64_t q;  // descriptor
    State<D>& state;
    Turn<P::stages> turn;

    __device__ std::uint64_t keys(int stage) const { return tile_descriptor(ring + stage * P::stage_bytes, D); }

    __device__ __forceinline__ void release(int stage) {
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&info.empty[stage]));
    }

    // Weights of the tile at `stage`, whose scores are in `s`, and their products with its values asked for.
    __device__ __forceinline__ void begin(int stage, Scores<BLOCK>& s, Weights<BLOCK>& weights, RowFactors<1>& factors,
                                          Sums<D>& sums) {
        weigh<BLOCK, D>(p, info, stage, state, s, weights, factors);
        const std::uint64_t v = tile_descriptor(ring + stage * P::stage_bytes + P::k_bytes, BLOCK);
        hold(weights[0]);
        wgmma_fence();
#pragma unroll
        for (int ks = 0; ks < BLOCK / 32; ++ks) wgmma_rs(sums, weights[0][ks], v + ks * kDescriptorStep, ks > 0);
        wgmma_commit();
    }

    // Whether there is a tile at the turn's stage; waits for it.
    __device__ __forceinline__ bool arrived() {
        barrier_wait(shared_address(&info.full[turn.stage]), turn.parity);
        return info.tile[turn.stage] >= 0;
    }

    // Attends to the tile whose scores are in `mine`, while the next tile's come into `next`. False after the last.
    __device__ __forceinline__ bool step(Scores<BLOCK>& mine, Scores<BLOCK>& next) {
        const int stage = turn.stage;
        turn.next();
        const bool more = arrived();
        // After the last tile a stale one is multiplied, for nothing: wgmma wants no branches around it.
        start_scores<D, BLOCK>(q, keys(turn.stage), next);
        Weights<BLOCK> weights;
        RowFactors<1> factors;
        Sums<D> sums;
        begin(stage, mine, weights, factors, sums);
        rescale<D>(state, factors);
        hold(state.o[0]);  // before the wait, not after
        wgmma_wait<0>();
        hold(sums);
        hold(next[0]);
        release(stage);
        add_values<D>(state, sums, factors);
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
        start_scores<D, BLOCK>(q, keys(turn.stage), scores);
        wgmma_wait<0>();
        hold(scores[0]);
        for (bool more = true; more;) {
            const int stage = turn.stage;
            begin(stage, scores, weights, factors, sums);
            turn.next();
            more = arrived();
            start_scores<D, BLOCK>(q, keys(turn.stage), scores);  // a stale tile's after the last
            rescale<D>(state, factors);
            wgmma_wait<1>();
            hold(sums);
            release(stage);
            add_values<D>(state, sums, factors);
            hold(state.o[0]);  // before the wait, not after
            wgmma_wait<0>();
            hold(scores[0]);
        }
    }

    // All key tiles of a query tile.
    __device__ __forceinline__ void run() {
        // Two sets of scores of 128 keys would not fit the registers beside o of 128 channels.
        constexpr bool ahead = D == 64 || BLOCK == 64;
        if (arrived()) {
            if constexpr (ahead) {
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

#endif

template <int D, int BLOCK, int GROUPS>
__global__ void __launch_bounds__((GROUPS + 1) * kGroup, GROUPS == 1 ? 2 : 1)
    attention_hopper_int8_kernel(const __grid_constant__ AttentionParams p) {
#if defined(PARO_SM90A)
    using P = Plan<D, BLOCK, GROUPS>;
    PARO_DYNAMIC_SHARED(shared);
    const std::uint32_t q_shared = shared_address(shared), ring = q_shared + P::q_bytes;
    unsigned char* staging = shared + P::q_bytes + P::stages * P::stage_bytes;
    StageInfo& info = *reinterpret_cast<StageInfo*>(staging + GROUPS * 4 * P::staging_bytes);
    if (threadIdx.x == 0) {
        barrier_init(shared_address(&info.queries_full), 1);
        barrier_init(shared_address(&info.queries_empty), GROUPS * 4);
        for (int s = 0; s < P::stages; ++s) {
            barrier_init(shared_address(&info.full[s]), 1);
            barrier_init(shared_address(&info.empty[s]), GROUPS * 4);
        }
        fence_barrier_init();
    }
    __syncthreads();
    const int group = static_cast<int>(threadIdx.x) / kGroup - 1;  // -1: the producer's
    if (group < 0) {
        give_registers<32>();
        if (threadIdx.x == 0) Producer<D, BLOCK, GROUPS>{p, info, q_shared, ring, {}}.run();
    } else {
        take_registers<GROUPS == 1 ? 224 : 232>();
        const int warp = threadIdx.x % kGroup / 32, row = group * kRows + warp * 16;
        State<D> state;
        Consumer<D, BLOCK, GROUPS> consumer{p, info, ring, tile_descriptor(q_shared + group * kRows * D, D), state, {}};
        for (std::uint32_t parity = 0;; parity ^= 1) {
            barrier_wait(shared_address(&info.queries_full), parity);
            if (info.item < 0) break;
            std::int32_t slot, tile;
            p.work_item(info.item, slot, tile);
            start<D>(p.packed.q_scale + (std::int64_t{slot} * p.q_blocks.blocks() + tile) * p.q_blocks.block + row,
                     state);
            consumer.run();
            if (threadIdx.x % 32 == 0) barrier_arrive(shared_address(&info.queries_empty));
            finish<D>(p.packed.channel + std::int64_t{slot} * D, state);
            const std::int64_t offset = output_offset(p, slot, tile, row + threadIdx.x % 16);
            store_output<D, 1>(p, state.o, offset, staging + (group * 4 + warp) * P::staging_bytes);
        }
    }
#else
    __trap();  // compiled without sm_90a
#endif
}

template <int D, int BLOCK, int GROUPS>
void launch(const AttentionParams& p, cudaStream_t stream) {
    check(cudaMemsetAsync(p.packed.counters + p.slots(), 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
    const int room = multiprocessors() * Plan<D, BLOCK, GROUPS>::ctas;
    launch_kernel("attention_hopper_int8_kernel", attention_hopper_int8_kernel<D, BLOCK, GROUPS>,
                  room < p.work_items() ? room : p.work_items(), (GROUPS + 1) * kGroup, Plan<D, BLOCK, GROUPS>::bytes,
                  stream, p);
}

template <int D>
void launch(const AttentionParams& p, cudaStream_t stream) {
    if (p.kv_blocks.block == 64) {
        p.q_blocks.block == 64 ? launch<D, 64, 1>(p, stream) : launch<D, 64, 2>(p, stream);
    } else {
        p.q_blocks.block == 64 ? launch<D, 128, 1>(p, stream) : launch<D, 128, 2>(p, stream);
    }
}

}  // namespace

std::string hopper_refuses(const AttentionParams& p, int capability) {
    if (p.precision != Precision::int8) return "precision is not int8";
    if (capability != 90) {
        return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10) +
               " is not 9.0";
    }
    return {};
}

void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? launch<128>(p, stream) : launch<64>(p, stream);
}

}  // namespace paro::cuda
