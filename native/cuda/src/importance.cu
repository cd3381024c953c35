// Exact importance (importance.h) with mma.sync: 128 query rows of a head's order against all keys, 64 at a time.
// Persistent CTAs, so that what they keep between products and normalising stays small enough for L2.
#include "importance.cuh"
#include "launch_kernel.h"

namespace paro::cuda {
namespace {

constexpr int kStages = 3;

// The queries come through the ring, all of it, before the first keys.
template <int D>
constexpr int kRingBytes = kStages* kScoreKeys* D * 2;
static_assert(kImportanceRows * 128 * 2 <= kRingBytes<128>);

template <class T, int D>
__global__ void __launch_bounds__(kScoreThreads, kImportanceResident)
    importance_kernel(const __grid_constant__ ImportanceParams p) {
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

template <class T, int D>
void launch(const ImportanceParams& p, cudaStream_t stream) {
    launch_kernel("importance_kernel", importance_kernel<T, D>, p.workers, kScoreThreads, kRingBytes<D>, stream, p);
}

template <class T>
void launch(const ImportanceParams& p, cudaStream_t stream) {
    p.base.head_dim == 128 ? launch<T, 128>(p, stream) : launch<T, 64>(p, stream);
}

}  // namespace

void set_importance(ImportanceParams& p, Path path, int capability) {
    require(p.base.dtype != DType::f32, "dtype", "must be f16 or bf16 for exact importance", "f32");
    require(p.base.q_blocks.block == kImportanceBlock && p.base.kv_blocks.block == kImportanceBlock, "block_q",
            "must be 64 here", p.base.q_blocks.block);
    require(path != Path::hopper || capability == 90, "path", "must fit the GPU",
            "hopper: compute capability " + std::to_string(capability) + " is not 90");
    p.path = path == Path::automatic && capability == 90 ? Path::hopper : path == Path::hopper ? path : Path::portable;
    const std::int32_t halves = (p.base.q_blocks.grid_blocks + kImportanceHalves - 1) / kImportanceHalves;
    const int resident = p.path == Path::hopper ? kImportanceHopperResident : kImportanceResident;
    p.workers = std::min(p.base.slots() * halves, multiprocessors() * resident);
}

std::size_t importance_bytes(const ImportanceParams& p) {
    return sizeof(float) * kImportanceRows * static_cast<std::size_t>(p.workers) * p.base.kv_blocks.grid_blocks;
}
void place_importance(ImportanceParams& p, void* base) { p.block_logs = static_cast<float*>(base); }

void launch_importance(const ImportanceParams& p, cudaStream_t stream) {
    if (p.path == Path::hopper) return launch_importance_hopper(p, stream);
    p.base.dtype == DType::bf16 ? launch<__nv_bfloat16>(p, stream) : launch<__half>(p, stream);
}

}  // namespace paro::cuda
