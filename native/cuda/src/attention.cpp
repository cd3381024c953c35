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
PARO_KERNELS(K, paro_attention_int8_narrow_d128_q64)
PARO_KERNELS(HDQK, paro_attention)
PARO_KERNELS(HD, paro_pool_means)

namespace {

std::string capability_text(int capability) {
    return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

// Bytes that the driver keeps of a CTA's shared memory, a little more.
constexpr int kKeptShared = 2048;

bool has_narrow(const AttentionParams& p) { return p.head_dim == 128 && p.q_blocks.block == 64; }

int portable_bytes(const AttentionParams& p, int stages) {
    return int8_shared_bytes(p.head_dim, p.q_blocks.block, stages, p.plan.mask_words);
}

// GPUs with 100 KB of shared memory hold two CTAs of 64 queries. With warps of 32 rows that is one warp for each of the
// multiprocessor's four parts, and nobody works while it waits.
bool prefers_narrow(const AttentionParams& p) {
    return has_narrow(p) && shared_memory_limit() / (portable_bytes(p, 2) + kKeptShared) < 4;
}

}  // namespace

Path choose_path(const AttentionParams& p, Path path, int capability) {
    const bool int8 = p.precision == Precision::int8;
    if (path == Path::hopper) {
        require(int8, "path", "must be auto or portable where precision is not int8", "hopper");
        require(capability == 90, "path", "must be auto or portable on a GPU of " + capability_text(capability),
                "hopper");
    }
    if (path == Path::narrow) {
        require(int8, "path", "must be auto or portable where precision is not int8", "narrow");
        require(has_narrow(p), "path", "must be auto or portable but for head_dim 128 and block_q 64", "narrow");
    }
    const bool any = path == Path::automatic || path == Path::hopper;
    if (any && int8 && capability == 90) return Path::hopper;
    require(capability >= 80, "device", "must be a GPU of compute capability 8.0 or newer",
            capability_text(capability));
    return path == Path::narrow ? path : Path::portable;
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

void launch_attention_narrow_int8(const AttentionParams& p, Stream stream) {
    constexpr int stages = 2;
    launch_kernel(kernels::paro_attention_int8_narrow_d128_q64(p), p.work_items(), kNarrowThreads,
                  portable_bytes(p, stages), stream, p, stages);
}

void launch_attention_portable_int8(const AttentionParams& p, Stream stream) {
    if (prefers_narrow(p)) return launch_attention_narrow_int8(p, stream);
    const int block_q = p.q_blocks.block;
    // Two CTAs of 128 threads on a multiprocessor at least; deeper rings where there is room.
    const int wanted = 8 / (block_q / kWarpRows), limit = shared_memory_limit();
    int stages = 2;
    while (stages < 3 && (portable_bytes(p, stages + 1) + kKeptShared) * wanted <= limit) ++stages;
    launch_kernel(kernels::paro_attention_int8(p), p.work_items(), portable_threads(block_q), portable_bytes(p, stages),
                  stream, p, stages);
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
    switch (path) {
        case Path::hopper:
            return launch_attention_hopper_int8(p, stream);
        case Path::narrow:
            return launch_attention_narrow_int8(p, stream);
        default:
            return launch_attention_portable_int8(p, stream);
    }
}

}  // namespace paro::cuda
