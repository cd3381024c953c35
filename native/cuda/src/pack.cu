// Dispatch of the pack kernels over dtype, head_dim and block size.
#include "launch_kernel.h"
#include "pack_keys.cuh"
#include "paro/cuda/launch.h"

namespace paro::cuda {
namespace {

enum class Part { queries, keys, all };

template <int D, int BLOCK>
void launch_pooled(const AttentionParams& p, cudaStream_t stream) {
    if (p.panels == 0) return;
    launch_kernel("pack_pooled_kernel", pack_pooled_kernel<D, BLOCK>, std::int64_t{p.slots()} * p.panels,
                  KeyTile<D, BLOCK>::threads, 0, stream, p);
}

template <class T, int D, int BLOCK>
void launch_keys(const AttentionParams& p, cudaStream_t stream) {
    launch_kernel("pack_keys_kernel", pack_keys_kernel<T, D, BLOCK>, std::int64_t{p.slots()} * p.kv_blocks.blocks(),
                  KeyTile<D, BLOCK>::threads, 0, stream, p);
    launch_pooled<D, BLOCK>(p, stream);
}

template <class T, int D>
void launch(const AttentionParams& p, Part part, cudaStream_t stream) {
    const std::int64_t rows = kPackThreads / (D / kRowPart), sums = std::int64_t{p.slots()} * p.chunks;
    const std::int64_t padded = std::int64_t{p.q_blocks.blocks()} * p.q_blocks.block;
    const std::int64_t queries = p.slots() * ((padded + rows - 1) / rows);
    const auto kernel = pack_queries_kernel<T, D>;
    if (part == Part::queries) {
        return launch_kernel("pack_queries_kernel", kernel, queries, kPackThreads, 0, stream, p, 0);
    }
    const std::size_t counter_bytes = (p.slots() + 1) * sizeof(std::int32_t);
    check(cudaMemsetAsync(p.packed.counters, 0, counter_bytes, stream), "cudaMemsetAsync");
    launch_kernel("pack_queries_kernel", kernel, sums + (part == Part::all ? queries : 0), kPackThreads, 0, stream, p,
                  static_cast<std::int32_t>(sums));
    p.kv_blocks.block == 64 ? launch_keys<T, D, 64>(p, stream) : launch_keys<T, D, 128>(p, stream);
}

template <class T>
void launch(const AttentionParams& p, Part part, cudaStream_t stream) {
    p.head_dim == 128 ? launch<T, 128>(p, part, stream) : launch<T, 64>(p, part, stream);
}

void launch(const AttentionParams& p, Part part, cudaStream_t stream) {
    switch (p.dtype) {
        case DType::f32:
            return launch<float>(p, part, stream);
        case DType::f16:
            return launch<__half>(p, part, stream);
        case DType::bf16:
            return launch<__nv_bfloat16>(p, part, stream);
    }
}

}  // namespace

void launch_pack_int8(const AttentionParams& p, cudaStream_t stream) { launch(p, Part::all, stream); }
void launch_pack_queries_int8(const AttentionParams& p, cudaStream_t stream) { launch(p, Part::queries, stream); }
void launch_pack_keys_int8(const AttentionParams& p, cudaStream_t stream) { launch(p, Part::keys, stream); }

}  // namespace paro::cuda
