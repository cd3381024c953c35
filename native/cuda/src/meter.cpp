// Launches of the meter: scratch, splits, which kernels.
#include <algorithm>

#include "cta_shapes.h"
#include "kernels.h"
#include "paro/cuda/launch.h"
#include "paro/cuda/observe.h"

namespace paro::cuda {

PARO_KERNELS(HDK, paro_meter)
PARO_KERNELS(D, paro_meter_rows)
PARO_KERNEL_ALONE(paro_meter_heads)

namespace {

constexpr int kResident = 2;  // CTAs of an SM

std::size_t partial_floats(const MeterParams& p) {
    const auto rows = static_cast<std::size_t>(p.sample.items()) * p.sample.splits * kSampleRows;
    return rows * (kMeterStats + 2 * p.sample.base.head_dim);
}

}  // namespace

// No split without a block.
void set_meter(MeterParams& p) {
    const std::int32_t wanted = multiprocessors() * kResident / p.sample.items();
    p.sample.splits = std::max(1, std::min(wanted, p.sample.base.kv_blocks.blocks() / 2));
}

std::size_t meter_bytes(const MeterParams& p) {
    const auto rows = static_cast<std::size_t>(p.sample.base.heads) * p.sample.queries;
    return sizeof(float) * (partial_floats(p) + 4 * rows);
}
void place_meter(MeterParams& p, void* base) {
    p.partial = static_cast<float*>(base);
    p.rows = reinterpret_cast<float4*>(p.partial + partial_floats(p));
}

void launch_meter(const MeterParams& p, Stream stream) {
    const AttentionParams& base = p.sample.base;
    const std::int64_t items = p.sample.items();
    launch_kernel(kernels::paro_meter(base), items * p.sample.splits, kScoreThreads,
                  meter_shared_bytes(base.head_dim, base.kv_blocks.block), stream, p);
    launch_kernel(kernels::paro_meter_rows(base), items * (kSampleRows / (kScoreThreads / 32)), kScoreThreads, 0,
                  stream, p);
    launch_kernel(kernels::paro_meter_heads, base.heads, kScoreThreads, 0, stream, p);
}

}  // namespace paro::cuda
