// params.cpp dispatches to the attention kernels; tests of other kernels do without them.
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {

std::string hopper_refuses(const AttentionParams&, int) { return "not in these tests"; }
void launch_attention_portable_int8(const AttentionParams&, cudaStream_t) { fail("path", "must be built", "none"); }
void launch_attention_hopper_int8(const AttentionParams&, cudaStream_t) { fail("path", "must be built", "none"); }
void launch_attention_portable_bf16(const AttentionParams&, cudaStream_t) { fail("path", "must be built", "none"); }

}  // namespace paro::cuda
