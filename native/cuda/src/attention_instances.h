// The attention kernels by head_dim. Each stands in a file of its own (attention_*_64.cu, attention_*_128.cu), so that
// they compile side by side.
#pragma once

#include "paro/cuda/launch.h"

namespace paro::cuda {

// As launch_attention_hopper_int8 and its siblings, for calls of head_dim D: 64 or 128.
template <int D>
void attention_hopper_int8(const AttentionParams& p, cudaStream_t stream);
template <int D>
void attention_portable_int8(const AttentionParams& p, cudaStream_t stream);
template <int D>
void attention_portable_bf16(const AttentionParams& p, cudaStream_t stream);

}  // namespace paro::cuda
