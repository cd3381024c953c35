// Exact importance (importance.h) with mma.sync: 128 query rows of a head's order against all keys, 64 at a time.
// Persistent CTAs, so that what they keep between products and normalising stays small enough for L2.
#include "importance.cuh"
#include "kernel.cuh"

namespace paro::cuda {
namespace {

constexpr int kStages = kImportanceStages;
// The queries come through the ring, all of it, before the first keys.
static_assert(kImportanceRows * 128 * 2 <= importance_ring_bytes(128, kStages));

template <class T, int D>
__device__ __forceinline__ void importance_body(const ImportanceParams& p) {
    PARO_DYNAMIC_SHARED(shared);
    __shared__ float4 log_sums[kImportanceRows / 4];
    constexpr int stage_bytes = kScoreKeys * D * 2;
    const AttentionParams& base = p.base;
    const std::int32_t worker = static_cast<std::int32_t>(blockIdx.x), cols = base.kv_blocks.grid_blocks;
    const std::int32_t items = base.slots() * ImportanceItem::per_slot(p);
    float* block_logs = p.block_logs + std::int64_t{worker} * cols * kImportanceRows;
    const std::uint32_t ring = shared_address(shared);
    const int first_row = threadIdx.x / 32 * 32;
    const float scale = base.sm_scale * kLog2E;

    for (std::int32_t number = worker; number < items; number += p.workers) {
        const ImportanceItem item(p, number);
        using QueryRows = RowCopy<T, D, kImportanceRows>;
        QueryRows::copy(head_rows<T>(base.q, base, item.slot), base.q.stride_n, item.query(p, QueryRows::row()), ring);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        HeldQueries<D, 2> q;
        q.load(ring);
        __syncthreads();
        RowSums<2> rows;
        rows.start();
        stream_tiles<kStages>(
            base.kv_blocks.blocks(), [] {},
            [&](int t, int stage) {
                using Rows = RowCopy<T, D, kScoreKeys>;
                Rows::copy(head_rows<T>(base.k, base, item.slot), base.k.stride_n, item.key(p, t, Rows::row()),
                           ring + stage * stage_bytes);
            },
            [&](int t, int stage) {
                TileScores<2> s;
                score_tile<T, D, 2>(q, ring + stage * stage_bytes, s);
                mask_columns<2>(s, base.layout.tokens_in(base.kv_blocks, t));
                float logs[2][2];
                take_block<2>(rows, s, scale, logs);
                store_logs<2>(p, block_logs, t, first_row, logs);
            });
        store_log_sums<2>(rows, reinterpret_cast<float*>(log_sums), first_row, item.tokens);
        __syncthreads();
        float* out = p.out + (std::int64_t{item.slot} * base.q_blocks.grid_blocks + item.first) * cols;
        sum_blocks<kScoreThreads / 32>(p, block_logs, log_sums, out,
                                       min(kImportanceHalves, base.q_blocks.grid_blocks - item.first));
        __syncthreads();
    }
}

}  // namespace

#define PARO_IMPORTANCE(T, D)                                                     \
    PARO_KERNEL(paro_importance_##T##_d##D, (kScoreThreads, kImportanceResident), \
                (const __grid_constant__ ImportanceParams p), importance_body<T, D>(p))
PARO_IMPORTANCE(f16, 64)
PARO_IMPORTANCE(f16, 128)
PARO_IMPORTANCE(bf16, 64)
PARO_IMPORTANCE(bf16, 128)

}  // namespace paro::cuda
