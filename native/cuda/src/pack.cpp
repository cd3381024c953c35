// Launches of the pack kernels.
#include "cta_shapes.h"
#include "kernels.h"
#include "paro/cuda/launch.h"

namespace paro::cuda {

PARO_KERNELS(TD, paro_pack_queries)
PARO_KERNELS(TDK, paro_pack_keys)
PARO_KERNELS(DK, paro_pack_pooled)

namespace {

// CTAs that pack all queries.
std::int64_t query_ctas(const AttentionParams& p) {
    const std::int64_t rows = packed_rows(p.head_dim), padded = std::int64_t{p.q_blocks.blocks()} * p.q_blocks.block;
    return p.slots() * ((padded + rows - 1) / rows);
}

// Sums, then keys and values; the launch of the sums packs the queries too where it is to.
void launch_keys(const AttentionParams& p, bool with_queries, Stream stream) {
    fill_zeros(p.packed.counters, (p.slots() + 1) * sizeof(std::int32_t), stream);
    const std::int64_t sums = std::int64_t{p.slots()} * p.chunks;
    launch_kernel(kernels::paro_pack_queries(p), sums + (with_queries ? query_ctas(p) : 0), kPackThreads, 0, stream, p,
                  static_cast<std::int32_t>(sums));
    const int threads = pack_key_threads(p.head_dim, p.kv_blocks.block);
    launch_kernel(kernels::paro_pack_keys(p), std::int64_t{p.slots()} * p.kv_blocks.blocks(), threads, 0, stream, p);
    if (p.panels == 0) return;
    launch_kernel(kernels::paro_pack_pooled(p), std::int64_t{p.slots()} * p.panels, threads, 0, stream, p);
}

}  // namespace

void launch_pack_int8(const AttentionParams& p, Stream stream) { launch_keys(p, true, stream); }
void launch_pack_keys_int8(const AttentionParams& p, Stream stream) { launch_keys(p, false, stream); }
void launch_pack_queries_int8(const AttentionParams& p, Stream stream) {
    launch_kernel(kernels::paro_pack_queries(p), query_ctas(p), kPackThreads, 0, stream, p, std::int32_t{0});
}

}  // namespace paro::cuda
