// Launches of the observer: sizes, scratch, which kernels.
#include "paro/cuda/observe.h"

#include <algorithm>

#include "cta_shapes.h"
#include "kernels.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

PARO_KERNELS(HD, paro_observe_rows)
PARO_KERNELS(HD, paro_observe_bins)

namespace {

// CTAs that an SM is expected to hold, and the least tiles that make a CTA worth its start.
constexpr int kResident = 4, kLeastTiles = 4;
// Bins and tables of offsets stay in shared memory up to these sizes.
constexpr int kSharedBins = 1 << 13, kSharedTables = 1 << 11;

}  // namespace

void set_samples(SampleParams& p, const Sizes& sizes) {
    require(p.queries >= 1 && p.queries <= 4096, "queries", "must be 1 to 4096 a head", p.queries);
    require(p.base.dtype != DType::f32, "dtype", "must be float16 or bfloat16 to observe", "float32");
    for (int axis = 0; axis < 3; ++axis) p.sides[axis] = sizes.grid[axis];
    const std::int32_t share = (p.queries + p.base.batch - 1) / p.base.batch;
    p.row_tiles = (share + kSampleRows - 1) / kSampleRows;
    const std::int32_t tiles = (p.base.layout.length() + kScoreKeys - 1) / kScoreKeys;
    const std::int32_t wanted = multiprocessors() * kResident / p.items();
    p.splits = std::max(1, std::min(wanted, tiles / kLeastTiles));
}

std::size_t observe_bytes(const ObserveParams& p) {
    return sizeof(float) * 2 * kSampleRows * static_cast<std::size_t>(p.sample.items()) * p.sample.splits;
}
void place_observe(ObserveParams& p, void* base) { p.partial = static_cast<float2*>(base); }

void launch_observe(const ObserveParams& p, Stream stream) {
    const std::int64_t axes = std::int64_t{p.bins[0]} + p.bins[1] + p.bins[2];
    require(axes <= 1536, "bins", "must be at most 512 an axis", axes);
    const AttentionParams& base = p.sample.base;
    const std::int64_t work = std::int64_t{p.sample.items()} * p.sample.splits;
    const int ring = observe_ring_bytes(base.head_dim);
    launch_kernel(kernels::paro_observe_rows(base), work, kScoreThreads, ring, stream, p);
    const std::int32_t* sides = p.sample.sides;
    const std::int32_t tables = 2 * (sides[0] + sides[1] + sides[2]) - 3;
    const std::int32_t bins_shared = p.all_bins() <= kSharedBins ? p.all_bins() : 0;
    const std::int32_t tables_shared = tables <= kSharedTables ? tables : 0;
    launch_kernel(kernels::paro_observe_bins(base), work + base.heads, kScoreThreads,
                  ring + 4 * (bins_shared + tables_shared), stream, p, bins_shared, tables_shared);
}

}  // namespace paro::cuda
