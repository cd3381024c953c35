// Launches that find masks on the fly: scratch, which kernels.
#include "paro/cuda/dynamic_mask.h"

#include <string>

#include "cta_shapes.h"
#include "kernels.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

PARO_KERNELS(TD, paro_pool_blocks)
PARO_KERNELS(D, paro_select_blocks)

namespace {

std::size_t means(const DynamicMaskParams& p, const BlockParams& blocks) {
    return static_cast<std::size_t>(p.base.slots()) * blocks.grid_blocks * p.base.head_dim;
}

}  // namespace

std::size_t dynamic_mask_bytes(const DynamicMaskParams& p) {
    return 4 * (means(p, p.base.q_blocks) + means(p, p.base.kv_blocks));
}
void place_dynamic_mask(DynamicMaskParams& p, void* base) {
    p.q_high = static_cast<std::uint16_t*>(base);
    p.q_low = p.q_high + means(p, p.base.q_blocks);
    p.k_high = p.q_low + means(p, p.base.q_blocks);
    p.k_low = p.k_high + means(p, p.base.kv_blocks);
}

void launch_dynamic_mask(const DynamicMaskParams& p, Stream stream) {
    const AttentionParams& base = p.base;
    // Scores of a CTA's mask rows, which have to fit shared memory.
    const std::int64_t block_bytes = std::int64_t{select_two_buffers(base.batch) ? 2 : 1} * kSelectRows * 4;
    const std::int64_t bytes = block_bytes * select_stride(base.kv_blocks.grid_blocks);
    const std::int64_t room = shared_memory_limit() - 2048;
    require(bytes <= room, "grid",
            "must have at most " + std::to_string(room / block_bytes - select_stride(0)) +
                " key blocks where every call finds its masks; take larger tiles or static masks",
            base.kv_blocks.grid_blocks);
    const std::int64_t rows = base.q_blocks.grid_blocks, blocks = rows + base.kv_blocks.grid_blocks;
    launch_kernel(kernels::paro_pool_blocks(base), base.slots() * blocks, kPoolThreads, 0, stream, p);
    launch_kernel(kernels::paro_select_blocks(base), base.heads * ((rows + kSelectRows - 1) / kSelectRows),
                  kSelectThreads, static_cast<int>(bytes), stream, p);
}

}  // namespace paro::cuda
