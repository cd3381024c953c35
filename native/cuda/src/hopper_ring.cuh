// How query and key tiles come to the consumers of the Hopper kernel: shared memory of a CTA, its ring of stages, and
// the thread that fills it.
#pragma once

#include "ptx_hopper.cuh"
#include "softmax_int8.cuh"
#include "tile_walk.cuh"

namespace paro::cuda {

constexpr int kHopperRows = 64;  // query rows of a warpgroup
constexpr int kMaxStages = 8;
constexpr int kQueryStages = 2;  // the next tile's queries, and its keys, come while this one is computed
constexpr int kGroup = 128;      // threads of a warpgroup

// Consumers free what the producer fills by one arrival a warp, after __syncwarp. compute-sanitizer's racecheck does
// not follow that: compiled with PARO_EVERY_LANE_ARRIVES each lane speaks for itself.
#if defined(PARO_EVERY_LANE_ARRIVES)
constexpr int kArrivals = kGroup;
#else
constexpr int kArrivals = kGroup / 32;  // of a warpgroup
#endif

// What the kernel is compiled with; native/cuda/bench measures them beside each other.
struct HopperOptions {
    bool trace = false;  // adds up what each role waits for
    int ctas = 1;        // of a multiprocessor
};

// The same as a number: nvcc 13.0 cannot launch kernels with a class as template argument.
constexpr unsigned encode(const HopperOptions& o) {
    return static_cast<unsigned>(o.trace) | static_cast<unsigned>(o.ctas) << 1;
}
constexpr HopperOptions decode(unsigned code) { return {(code & 1) != 0, static_cast<int>(code >> 1)}; }

// Flags of a key tile: some of its keys do not count, its keys are pooled.
constexpr std::uint32_t kSome = 1, kPooled = 2;

// What goes with a stage of the ring.
struct StageInfo {
    int4 tile[kMaxStages];  // key tile, -1 after the last of a query tile; flags; scales of k and v
    std::uint64_t valid[kMaxStages][2];
    std::int32_t item[kQueryStages];  // work item whose queries have come, -1 after the last
    // Barriers; the last two pairs are for the queries and the item.
    std::uint64_t full[kMaxStages], empty[kMaxStages], queries_full[kQueryStages], queries_empty[kQueryStages];
};

// Shared memory of a CTA, in this order, and registers of its threads.
template <int D, int BLOCK, int GROUPS, int CTAS>
struct HopperPlan {
    static constexpr int q_bytes = GROUPS * kHopperRows * D, k_bytes = BLOCK * D, stage_bytes = 2 * k_bytes;
    static constexpr int staging_bytes = 16 * (2 * D + 16);  // of a warp
    static constexpr int fixed =
        kQueryStages * q_bytes + GROUPS * 4 * staging_bytes + static_cast<int>(sizeof(StageInfo));
    static constexpr int budget = (227 << 10) / CTAS - 1024;
    static constexpr int room = (budget - fixed) / stage_bytes;
    static constexpr int stages = room < kMaxStages ? room : kMaxStages;
    static constexpr int bytes = fixed + stages * stage_bytes;
    static_assert(stages >= 2);

    static constexpr int threads = (GROUPS + 1) * kGroup;
    // What the compiler gives each thread at the start; afterwards the producer's few go to the consumers.
    static constexpr int at_start = (64 << 10) / (CTAS * threads) / 8 * 8;
    static constexpr int producer = D == 64 ? 32 : 24;
    static constexpr int left = (at_start * (GROUPS + 1) - producer) / GROUPS / 8 * 8;
    static constexpr int consumer = left < 240 ? left : 240;
};

#if defined(PARO_TRACE)
// Clocks of all CTAs together, of the consumers' first warps: what kTrace* name, and last the turns taken.
enum { kTraceStart, kTraceScores, kTraceValues, kTraceSoftmax, kTraceBetween, kTraceSteps, kTraceSlots };
static __device__ unsigned long long hopper_trace[2][kTraceSlots];
#endif

#if defined(PARO_SM90A)

#if defined(PARO_TRACE)
// Adds the clocks since the last call to a slot; by constants, so that the sums are registers.
template <bool ON>
struct Trace {
    std::uint32_t last = 0, sums[kTraceSlots] = {};
    __device__ __forceinline__ void start() { last = clock_now(); }
    template <int slot>
    __device__ __forceinline__ void mark() {
        const std::uint32_t now = clock_now();
        sums[slot] += now - last;
        last = now;
        if (slot == kTraceValues) ++sums[kTraceSteps];
    }
    __device__ void flush(int group) {
        for (int i = 0; i < kTraceSlots; ++i) {
            atomicAdd(&hopper_trace[group][i], static_cast<unsigned long long>(sums[i]));
        }
    }
};
#else
enum { kTraceStart, kTraceScores, kTraceValues, kTraceSoftmax, kTraceBetween };
template <bool ON>
struct Trace;
#endif
template <>
struct Trace<false> {
    __device__ __forceinline__ void start() {}
    template <int slot>
    __device__ __forceinline__ void mark() {}
    __device__ void flush(int) {}
};

__device__ __forceinline__ void arrive_warp(std::uint32_t barrier) {
    __syncwarp();
    if (kArrivals == kGroup || threadIdx.x % 32 == 0) barrier_arrive(barrier);
}

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
template <int D, int BLOCK, class P>
struct Producer {
    const AttentionParams& p;
    StageInfo& info;
    std::uint32_t q_shared, ring;
    Turn<P::stages> turn;

    __device__ void wait_empty() const { barrier_wait(shared_address(&info.empty[turn.stage]), turn.parity ^ 1); }

    __device__ void bring(const TileWalk<BLOCK>& walk, std::int64_t first, std::int32_t tile) {
        const std::uint64_t low = walk.columns(tile, 0), high = BLOCK == 128 ? walk.columns(tile, 1) : 0;
        if ((low | high) == 0) return;
        const std::int64_t at = first + tile;
        const float2 scale = __ldg(p.packed.kv_scale + at);  // on its way while the stage becomes free
        const bool all = low == ~std::uint64_t{0} && (BLOCK == 64 || high == ~std::uint64_t{0});
        const std::uint32_t flags = (all ? 0 : kSome) | (tile >= p.kv_blocks.blocks() ? kPooled : 0);
        wait_empty();
        const int s = turn.stage;
        info.valid[s][0] = low;
        info.valid[s][1] = high;
        info.tile[s] =
            make_int4(tile, static_cast<std::int32_t>(flags), __float_as_int(scale.x), __float_as_int(scale.y));
        const std::uint32_t full = shared_address(&info.full[s]), to = ring + s * P::stage_bytes;
        barrier_expect(full, P::stage_bytes);
        copy_bulk(to, p.packed.k + at * P::k_bytes, P::k_bytes, full);
        copy_bulk(to + P::k_bytes, p.packed.v + at * P::k_bytes, P::k_bytes, full);
        turn.next();
    }

    __device__ void run() {
        Turn<kQueryStages> queries;
        for (;; queries.next()) {
            const int s = queries.stage;
            const std::uint32_t full = shared_address(&info.queries_full[s]);
            const std::int32_t item = atomicAdd(p.packed.counters + p.slots(), 1);
            barrier_wait(shared_address(&info.queries_empty[s]), queries.parity ^ 1);
            if (item >= p.work_items()) {
                info.item[s] = -1;
                return barrier_arrive(full);
            }
            std::int32_t slot, tile;
            p.work_item(item, slot, tile);
            info.item[s] = item;
            barrier_expect(full, P::q_bytes);
            const std::int64_t at = std::int64_t{slot} * p.q_blocks.blocks() + tile;
            copy_bulk(q_shared + s * P::q_bytes, p.packed.q + at * P::q_bytes, P::q_bytes, full);
            const bool in_grid = p.q_blocks.is_grid(tile);
            TileWalk<BLOCK> walk(p, in_grid ? p.mask_row(slot % p.heads, tile) : nullptr);
            const std::int64_t first = std::int64_t{slot} * p.key_tiles();
            for (std::int32_t next = walk.next_tile(); next >= 0; next = walk.next_tile()) bring(walk, first, next);
            wait_empty();
            info.tile[turn.stage] = make_int4(-1, 0, 0, 0);
            barrier_arrive(shared_address(&info.full[turn.stage]));
            turn.next();
        }
    }
};

#endif

}  // namespace paro::cuda
