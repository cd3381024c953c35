// Launch functions. All work goes to `stream` of the current device; nothing here waits or allocates. Errors are thrown
// as paro::Error (bad argument) or LaunchError (what CUDA says), and leave the process usable.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "paro/cuda/params.h"

namespace paro::cuda {

class LaunchError : public std::runtime_error {
   public:
    LaunchError(const char* what, cudaError_t code);
};
// Throws LaunchError unless `code` is cudaSuccess; clears the error state of the thread.
void check(cudaError_t code, const char* what);

struct Sizes {
    std::int32_t prefix, grid[3], suffix, block_q, block_kv;  // grid F, H, W
};

// Fills everything that follows from batch, heads, head_dim, precision, tail and sizes: layout, blocks, panels, chunks.
// Throws Error naming the argument.
void set_sizes(AttentionParams& p, const Sizes& sizes);

// Bytes of scratch for `p`, and its pieces carved from `base` (256-byte aligned; rounded up inside).
std::size_t workspace_bytes(const AttentionParams& p);
void place_workspace(AttentionParams& p, void* base);

// int32 words of a plan: orders, schedule, masks in this order; and its pieces in a blob on the device.
std::int64_t plan_words(const AttentionParams& p);
void place_plan(AttentionParams& p, const void* blob);

// Whether the kernels of a path can take p on a device of this compute capability; an empty string means yes, else why
// not. `capability` is major * 10 + minor.
std::string portable_refuses(const AttentionParams& p, int capability);
std::string hopper_refuses(const AttentionParams& p, int capability);

// int8: q, k, v in original order to the packed tiles of params.h.
void launch_pack_int8(const AttentionParams& p, cudaStream_t stream);
// The attention itself; needs the packed tiles. o is written whole.
void launch_attention_portable_int8(const AttentionParams& p, cudaStream_t stream);
void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream);
// Without quantisation; reads q, k, v in their original places. Pools for the tail first.
void launch_attention_portable_bf16(const AttentionParams& p, cudaStream_t stream);

// Everything of a call. Returns the path that ran.
Path launch_attention(const AttentionParams& p, Path path, int capability, cudaStream_t stream);

}  // namespace paro::cuda
