// Dispatch of the pack kernels over dtype, head_dim and block size.
#include "launch_check.h"
#include "pack_keys.cuh"
#include "paro/cuda/launch.h"

namespace paro::cuda {
namespace {

template <int D, int BLOCK>
void launch_pooled(const AttentionParams& p, cudaStream_t stream) {
    if (p.panels == 0) return;
    pack_pooled_kernel<D, BLOCK>
        <<<grid_size(std::int64_t{p.slots()} * p.panels), KeyTile<D, BLOCK>::threads, 0, stream>>>(p);
    check_launch("pack_pooled_kernel");
}

template <class T, int D>
void launch(const AttentionParams& p, cudaStream_t stream) {
    const std::size_t counter_bytes = (p.slots() + 1) * sizeof(std::int32_t);
    check(cudaMemsetAsync(p.packed.counters, 0, counter_bytes, stream), "cudaMemsetAsync");
    pack_queries_kernel<T, D><<<grid_size(pack_queries_grid<D>(p)), kPackThreads, 0, stream>>>(p);
    check_launch("pack_queries_kernel");
    const unsigned blocks = grid_size(std::int64_t{p.slots()} * p.kv_blocks.blocks());
    if (p.kv_blocks.block == 64) {
        pack_keys_kernel<T, D, 64><<<blocks, KeyTile<D, 64>::threads, 0, stream>>>(p);
        check_launch("pack_keys_kernel");
        launch_pooled<D, 64>(p, stream);
    } else {
        pack_keys_kernel<T, D, 128><<<blocks, KeyTile<D, 128>::threads, 0, stream>>>(p);
        check_launch("pack_keys_kernel");
        launch_pooled<D, 128>(p, stream);
    }
}

template <class T>
void launch(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? launch<T, 128>(p, stream) : launch<T, 64>(p, stream);
}

}  // namespace

void launch_pack_int8(const AttentionParams& p, cudaStream_t stream) {
    switch (p.dtype) {
        case DType::f32:
            return launch<float>(p, stream);
        case DType::f16:
            return launch<__half>(p, stream);
        case DType::bf16:
            return launch<__nv_bfloat16>(p, stream);
    }
}

}  // namespace paro::cuda
