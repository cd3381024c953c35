// Exact importance (importance.h) for sm_90a: as importance.cu, with wgmma. Two warpgroups of 64 rows share each tile
// of keys; the product of the next tile is under way while exponentials of this one are taken.
#include "importance.cuh"
#include "kernel.cuh"
#include "ptx_hopper_half.cuh"

namespace paro::cuda {
namespace {

constexpr int kThreads = kImportanceHopperThreads, kStages = kImportanceHopperStages;
template <int D>
constexpr int kStageBytes = kScoreKeys* D * 2;
static_assert(kImportanceRows * 128 * 2 <= importance_ring_bytes(128, kStages));

#if defined(PARO_SM90A)

// Asks for the scores of this warpgroup's 64 rows against a tile of keys in panels.
template <class T, int D>
__device__ __forceinline__ void ask_scores(const HeldQueries<D, 1>& q, std::uint32_t keys, TileScores<1>& s) {
    const std::uint64_t tile = tile_descriptor(keys, 128);
    fence_registers(s[0]);
    wgmma_fence();
#pragma unroll
    for (int ks = 0; ks < D / 16; ++ks) {
        const std::uint64_t panel = ks / 4 * (kScoreKeys * 128 / 16);
        wgmma_half_rs<T>(s[0], q.a[ks][0], tile + panel + ks % 4 * kDescriptorStep, ks != 0);
    }
    wgmma_commit();
}

// One item's pass over the keys.
template <class T, int D>
struct KeyPass {
    const ImportanceParams& p;
    const ImportanceItem& item;
    HeldQueries<D, 1>& q;
    std::uint32_t ring;
    float* block_logs;
    float scale;
    RowSums<1> rows;

    __device__ __forceinline__ void fetch(std::int32_t t) {
        using Rows = RowCopy<T, D, kScoreKeys, kThreads, true>;
        if (t < p.base.kv_blocks.blocks()) {
            Rows::copy(head_rows<T>(p.base.k, p.base, item.slot), p.base.k.stride_n, item.key(p, t, Rows::row()),
                       ring + t % kStages * kStageBytes<D>);
        }
        commit_copies();
    }
    // Tile t's keys have come and all threads are past tile t - 2: fetches and asks for scores.
    __device__ __forceinline__ void arrive(std::int32_t t, TileScores<1>& s) {
        wait_copies<kStages - 3>();
        fence_async();
        __syncthreads();
        fetch(t + kStages - 2);
        ask_scores<T, D>(q, ring + t % kStages * kStageBytes<D>, s);
    }
    // Takes tile t, whose scores `own` holds, while those of the next come. After the last tile whatever the ring holds
    // is multiplied and nobody looks: wgmma wants no branches around it.
    __device__ __forceinline__ void take(std::int32_t t, TileScores<1>& own, TileScores<1>& next) {
        arrive(t + 1, next);
        mask_columns<1>(own, p.base.layout.tokens_in(p.base.kv_blocks, t));
        float logs[1][2];
        take_block<1>(rows, own, scale, logs);
        store_logs<1>(p, block_logs, t, threadIdx.x / 32 * 16, logs);
        wgmma_wait<0>();
        fence_registers(next[0]);
    }
    __device__ __forceinline__ void run() {
        const std::int32_t tiles = p.base.kv_blocks.blocks();
        TileScores<1> even, odd;
        rows.start();
#pragma unroll
        for (int t = 0; t < kStages - 2; ++t) fetch(t);
        arrive(0, even);
        wgmma_wait<0>();
        fence_registers(even[0]);
        for (std::int32_t t = 0;;) {
            take(t, even, odd);
            if (++t == tiles) break;
            take(t, odd, even);
            if (++t == tiles) break;
        }
        wait_copies<0>();
        __syncthreads();
    }
};

template <class T, int D>
__device__ void sum_items(const ImportanceParams& p, std::uint32_t ring, float4* log_sums) {
    const AttentionParams& base = p.base;
    const std::int32_t worker = static_cast<std::int32_t>(blockIdx.x), cols = base.kv_blocks.grid_blocks;
    const std::int32_t items = base.slots() * ImportanceItem::per_slot(p);
    float* block_logs = p.block_logs + std::int64_t{worker} * cols * kImportanceRows;
    for (std::int32_t number = worker; number < items; number += p.workers) {
        const ImportanceItem item(p, number);
        using QueryRows = RowCopy<T, D, kImportanceRows, kThreads>;
        QueryRows::copy(head_rows<T>(base.q, base, item.slot), base.q.stride_n, item.query(p, QueryRows::row()), ring);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        HeldQueries<D, 1> q;
        q.load(ring);
        __syncthreads();
        KeyPass<T, D> pass{p, item, q, ring, block_logs, base.sm_scale * kLog2E, {}};
        pass.run();
        store_log_sums<1>(pass.rows, reinterpret_cast<float*>(log_sums), threadIdx.x / 32 * 16, item.tokens);
        __syncthreads();
        float* out = p.out + (std::int64_t{item.slot} * base.q_blocks.grid_blocks + item.first) * cols;
        sum_blocks<kThreads / 32>(p, block_logs, log_sums, out,
                                  min(kImportanceHalves, base.q_blocks.grid_blocks - item.first));
        __syncthreads();
    }
}

#endif

template <class T, int D>
__device__ __forceinline__ void importance_hopper_body(const ImportanceParams& p) {
#if defined(PARO_SM90A)
    PARO_DYNAMIC_SHARED(shared);
    __shared__ float4 log_sums[kImportanceRows / 4];
    sum_items<T, D>(p, shared_address(shared), log_sums);
#endif
}

}  // namespace

#define PARO_IMPORTANCE(T, D)                                                             \
    PARO_KERNEL(paro_importance_hopper_##T##_d##D, (kThreads, kImportanceHopperResident), \
                (const __grid_constant__ ImportanceParams p), importance_hopper_body<T, D>(p))
PARO_IMPORTANCE(f16, 64)
PARO_IMPORTANCE(f16, 128)
PARO_IMPORTANCE(bf16, 64)
PARO_IMPORTANCE(bf16, 128)

}  // namespace paro::cuda
