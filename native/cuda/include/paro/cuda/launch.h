// Launch functions. All work goes to `stream` of the current device; nothing here waits or allocates. Errors are thrown
// as paro::Error (bad argument) or LaunchError (what CUDA says), and leave the process usable.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "paro/cuda/params.h"
#include "paro/plan_words.h"

namespace paro::cuda {

class LaunchError : public std::runtime_error {
   public:
    LaunchError(const char* what, cudaError_t code);
    cudaError_t code() const noexcept { return code_; }

   private:
    cudaError_t code_;
};
// Throws LaunchError unless `code` is cudaSuccess; clears the error state of the thread.
void check(cudaError_t code, const char* what);

struct Sizes {
    std::int32_t prefix, grid[3], suffix, block_q, block_kv;  // grid F, H, W
};

// Fills everything that follows from batch, heads, head_dim, precision, tail and sizes: layout, blocks, panels, chunks.
// Throws Error naming the argument.
void set_sizes(AttentionParams& p, const Sizes& sizes);

// Scratch comes in two allocations, so that q can be let go before k and v are packed: packed queries, and all the
// rest. Bytes of each for `p`, and their pieces carved from a base (any alignment; rounded up inside).
std::size_t query_bytes(const AttentionParams& p);
std::size_t key_bytes(const AttentionParams& p);
void place_queries(AttentionParams& p, void* base);
void place_keys(AttentionParams& p, void* base);

// How the words of a plan of these sizes are laid out, and its parts in such words on the device.
PlanWords plan_layout(const AttentionParams& p);
void place_plan(AttentionParams& p, const void* words);

// int8: q, k, v in original order to the packed tiles of params.h. The first does both of the others' work in fewer
// launches.
void launch_pack_int8(const AttentionParams& p, cudaStream_t stream);
void launch_pack_queries_int8(const AttentionParams& p, cudaStream_t stream);
void launch_pack_keys_int8(const AttentionParams& p, cudaStream_t stream);
// The attention itself; needs the packed tiles. o is written whole.
void launch_attention_portable_int8(const AttentionParams& p, cudaStream_t stream);
void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream);
// Without quantisation; reads q, k, v in their original places. Pools for the tail first.
void launch_attention_portable_bf16(const AttentionParams& p, cudaStream_t stream);

// The path that a call takes on a device of this compute capability, major * 10 + minor: `path` itself unless
// automatic. Throws Error where it cannot run, saying why.
Path choose_path(const AttentionParams& p, Path path, int capability);
// The attention of a call on a path that choose_path returned; int8 needs the packed tiles.
void launch_attention(const AttentionParams& p, Path path, cudaStream_t stream);

}  // namespace paro::cuda
