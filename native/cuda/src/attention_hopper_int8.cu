// Which instance of the Hopper kernel a call takes, for sm_90a.
#include "attention_hopper_int8.cuh"
#include "paro/cuda/launch.h"

namespace paro::cuda {
namespace {

// As many CTAs as fit a multiprocessor's registers.
template <int D, int BLOCK, int GROUPS>
constexpr HopperOptions best() {
    return {.ctas = GROUPS == 2 ? 1 : D == 64 && BLOCK == 64 ? 3 : 2};
}

template <int D, int BLOCK, int GROUPS>
void launch(const AttentionParams& p, cudaStream_t stream) {
    launch_hopper<D, BLOCK, GROUPS, best<D, BLOCK, GROUPS>()>(p, stream);
}

template <int D>
void launch(const AttentionParams& p, cudaStream_t stream) {
    if (p.kv_blocks.block == 64) {
        p.q_blocks.block == 64 ? launch<D, 64, 1>(p, stream) : launch<D, 64, 2>(p, stream);
    } else {
        p.q_blocks.block == 64 ? launch<D, 128, 1>(p, stream) : launch<D, 128, 2>(p, stream);
    }
}

}  // namespace

std::string hopper_refuses(const AttentionParams& p, int capability) {
    if (p.precision != Precision::int8) return "precision is not int8";
    if (capability != 90) {
        return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10) +
               " is not 9.0";
    }
    return {};
}

void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? launch<128>(p, stream) : launch<64>(p, stream);
}

}  // namespace paro::cuda
