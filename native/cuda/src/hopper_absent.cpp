// Stands in where the build holds no sm_90a kernels.
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

std::string hopper_refuses(const AttentionParams&, int) { return "this build holds no sm_90a kernels"; }

void launch_attention_hopper_int8(const AttentionParams&, cudaStream_t) {
    fail("path", "must be portable in this build", "hopper");
}

}  // namespace paro::cuda
