// Which attention kernel a call takes, why not another, and the launch.
#include <algorithm>

#include "cta_shapes.h"
#include "kernels.h"
#include "launch_hopper.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

PARO_KERNELS(DQK, paro_attention_hopper_int8)
PARO_KERNELS(DQK, paro_attention_int8)
PARO_KERNELS(HDQK, paro_attention)
PARO_KERNELS(HD, paro_pool_means)

namespace {

std::string capability_text(int capability) {
    return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

}  // namespace

Path choose_path(const AttentionParams& p, Path path, int capability) {
    const bool int8 = p.precision == Precision::int8;
    if (path == Path::hopper) {
        require(int8, "path", "must be auto or portable where precision is not int8", "hopper");
        require(capability == 90, "path", "must be auto or portable on a GPU of " + capability_text(capability),
                "hopper");
    }
    if (path != Path::portable && int8 && capability == 90) return Path::hopper;
    require(capability >= 80, "device", "must be a GPU of compute capability 8.0 or newer",
            capability_text(capability));
    return Path::portable;
}

void launch_hopper(Kernel& kernel, const HopperOptions& options, const AttentionParams& p, Stream stream) {
    const HopperPlan plan = hopper_plan(p.head_dim, p.q_blocks.block, p.kv_blocks.block, options.ctas);
    fill_zeros(p.packed.counters + p.slots(), sizeof(std::int32_t), stream);
    const int ctas = std::min(multiprocessors() * options.ctas, p.work_items());
    launch_kernel(kernel, ctas, plan.threads, plan.bytes, stream, p);
}

void launch_attention_hopper_int8(const AttentionParams& p, Stream stream) {
    launch_hopper(kernels::paro_attention_hopper_int8(p), best_options(p.head_dim, p.q_blocks.block, p.kv_blocks.block),
                  p, stream);
}

void launch_attention_portable_int8(const AttentionParams& p, Stream stream) {
    const int block_q = p.q_blocks.block;
    const auto bytes = [&](int stages) { return int8_shared_bytes(p.head_dim, block_q, stages, p.plan.mask_words); };
    // Two CTAs of 128 threads on a multiprocessor at least; deeper rings where there is room.
    const int wanted = 8 / (block_q / kWarpRows), limit = shared_memory_limit();
    int stages = 2;
    while (stages < 3 && (bytes(stages + 1) + 2048) * wanted <= limit) ++stages;
    launch_kernel(kernels::paro_attention_int8(p), p.work_items(), portable_threads(block_q), bytes(stages), stream, p,
                  stages);
}

void launch_attention_portable_bf16(const AttentionParams& p, Stream stream) {
    require(p.dtype != DType::f32, "dtype", "must be float16 or bfloat16 where precision is bf16", "float32");
    if (p.panels > 0) {
        const std::int64_t blocks = std::int64_t{p.slots()} * p.kv_blocks.grid_blocks;
        launch_kernel(kernels::paro_pool_means(p), blocks, kPackThreads, 0, stream, p);
    }
    const int block_q = p.q_blocks.block;
    launch_kernel(kernels::paro_attention(p), p.work_items(), portable_threads(block_q),
                  half_shared_bytes(p.head_dim, block_q, p.plan.mask_words), stream, p);
}

void launch_attention(const AttentionParams& p, Path path, Stream stream) {
    if (p.precision == Precision::bf16) return launch_attention_portable_bf16(p, stream);
    path == Path::hopper ? launch_attention_hopper_int8(p, stream) : launch_attention_portable_int8(p, stream);
}

}  // namespace paro::cuda
