// How query and key tiles come to the consumers of the Hopper kernel: shared memory of a CTA, its ring of stages, and
// the thread that fills it.
#pragma once

#include "cta_shapes.h"
#include "ptx_hopper.cuh"
#include "softmax_int8.cuh"
#include "tile_walk.cuh"

namespace paro::cuda {

// Consumers free what the producer fills by one arrival a warp, after __syncwarp. compute-sanitizer's racecheck does
// not follow that: for it, tools/every_lane_arrives.py changes the machine code so that each lane arrives itself.
constexpr int kArrivals = kWarpgroupThreads / 32;  // of a warpgroup

// Flags of a key tile: some of its keys do not count, its keys are pooled.
constexpr std::uint32_t kPartial = 1, kPooled = 2;

// What goes with the stages of the ring and of the queries. Barriers count arrivals and bytes: `full` completes when a
// stage's copies have landed, `empty` when every consumer has let go of it.
struct TileInfo {
    int4 tile[kMaxStages];               // key tile, -1 after the last of a query tile; flags; scales of k and v
    std::uint64_t valid[kMaxStages][2];  // which of its keys count, 64 a word
    std::int32_t item[kQueryStages];     // work item whose queries have come, -1 after the last
    std::uint64_t full[kMaxStages], empty[kMaxStages];
    std::uint64_t queries_full[kQueryStages], queries_empty[kQueryStages];
};

static_assert(sizeof(TileInfo) == kTileInfoBytes);

#if defined(PARO_TRACE)
// Clocks of all CTAs together, of the consumers' first warps: what kTrace* name, and last the turns taken.
enum { kTraceStart, kTraceScores, kTraceValues, kTraceSoftmax, kTraceBetween, kTraceSteps, kTraceSlots };
static __device__ unsigned long long hopper_trace[2][kTraceSlots];
// Moves them to `out`, for a kernel of one thread.
__device__ inline void take_trace(unsigned long long* out) {
    for (int i = 0; i < 2 * kTraceSlots; ++i) {
        out[i] = hopper_trace[i / kTraceSlots][i % kTraceSlots];
        hopper_trace[i / kTraceSlots][i % kTraceSlots] = 0;
    }
}
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
    if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}

// Where a role stands in a ring: its stage, and the parity of that stage's barriers in this round.
template <int STAGES>
struct PipelineState {
    int stage = 0;
    std::uint32_t parity = 0;
    __device__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// The producer is one thread. For each work item it loads the queries, then every key tile of its mask row, then says
// that there are no more.
template <int D, int BLOCK, HopperPlan P>
struct Producer {
    const AttentionParams& p;
    TileInfo& info;
    std::uint32_t queries, ring;  // shared addresses
    PipelineState<P.stages> state;

    __device__ void wait_empty() const { barrier_wait(shared_address(&info.empty[state.stage]), state.parity ^ 1); }

    // A key tile to the ring's next stage. `first`: number of this slot's first tile. A tile without any key that
    // counts is left out.
    __device__ void load_tile(const TileWalk<BLOCK>& walk, std::int64_t first, std::int32_t tile) {
        const std::uint64_t low = walk.columns(tile, 0), high = BLOCK == 128 ? walk.columns(tile, 1) : 0;
        if ((low | high) == 0) return;
        const std::int64_t at = first + tile;
        const float2 scale = __ldg(p.packed.kv_scale + at);  // on its way while the stage becomes free
        const bool all = low == ~std::uint64_t{0} && (BLOCK == 64 || high == ~std::uint64_t{0});
        const std::uint32_t flags = (all ? 0 : kPartial) | (tile >= p.kv_blocks.blocks() ? kPooled : 0);
        wait_empty();
        const int s = state.stage;
        info.valid[s][0] = low;
        info.valid[s][1] = high;
        info.tile[s] =
            make_int4(tile, static_cast<std::int32_t>(flags), __float_as_int(scale.x), __float_as_int(scale.y));
        const std::uint32_t full = shared_address(&info.full[s]), to = ring + s * P.stage_bytes;
        barrier_expect(full, P.stage_bytes);
        copy_bulk(to, p.packed.k + at * P.k_bytes, P.k_bytes, full);
        copy_bulk(to + P.k_bytes, p.packed.v + at * P.k_bytes, P.k_bytes, full);
        state.next();
    }

    __device__ void end_of_tiles() {
        wait_empty();
        info.tile[state.stage] = make_int4(-1, 0, 0, 0);
        barrier_arrive(shared_address(&info.full[state.stage]));
        state.next();
    }

    __device__ void run() {
        for (PipelineState<kQueryStages> next_queries;; next_queries.next()) {
            // The next work item; there may be none.
            const int s = next_queries.stage;
            const std::uint32_t full = shared_address(&info.queries_full[s]);
            const std::int32_t item = atomicAdd(p.packed.counters + p.slots(), 1);
            barrier_wait(shared_address(&info.queries_empty[s]), next_queries.parity ^ 1);
            if (item >= p.work_items()) {
                info.item[s] = -1;
                return barrier_arrive(full);
            }
            // Its queries.
            std::int32_t slot, tile;
            p.work_item(item, slot, tile);
            info.item[s] = item;
            barrier_expect(full, P.q_bytes);
            const std::int64_t at = std::int64_t{slot} * p.q_blocks.blocks() + tile;
            copy_bulk(queries + s * P.q_bytes, p.packed.q + at * P.q_bytes, P.q_bytes, full);
            // Its key tiles.
            const bool in_grid = p.q_blocks.is_grid(tile);
            TileWalk<BLOCK> walk(p, in_grid ? p.mask_row(slot % p.heads, tile) : nullptr);
            const std::int64_t first = std::int64_t{slot} * p.key_tiles();
            for (std::int32_t next = walk.next_tile(); next >= 0; next = walk.next_tile()) load_tile(walk, first, next);
            end_of_tiles();
        }
    }
};

#endif

}  // namespace paro::cuda
