// Launches of exact importance: which path, scratch, which kernel.
#include "paro/cuda/importance.h"

#include <algorithm>

#include "cta_shapes.h"
#include "kernels.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

PARO_KERNELS(HD, paro_importance)
PARO_KERNELS(HD, paro_importance_hopper)

void set_importance(ImportanceParams& p, Path path, int capability) {
    require(p.base.dtype != DType::f32, "dtype", "must be float16 or bfloat16 for exact importance", "float32");
    require(p.base.q_blocks.block == kImportanceBlock && p.base.kv_blocks.block == kImportanceBlock, "block_q",
            "must be 64 for exact importance", p.base.q_blocks.block);
    require(path != Path::hopper || capability == 90, "path", "must fit the GPU; take automatic",
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

void launch_importance(const ImportanceParams& p, Stream stream) {
    const bool hopper = p.path == Path::hopper;
    const int stages = hopper ? kImportanceHopperStages : kImportanceStages;
    launch_kernel(hopper ? kernels::paro_importance_hopper(p.base) : kernels::paro_importance(p.base), p.workers,
                  hopper ? kImportanceHopperThreads : kScoreThreads, importance_ring_bytes(p.base.head_dim, stages),
                  stream, p);
}

}  // namespace paro::cuda
