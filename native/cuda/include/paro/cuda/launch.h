// Launch functions. All work goes to `stream` of the current device; nothing here waits or allocates. Errors are thrown
// as paro::Error (bad argument) or LaunchError (what the driver says), and leave the process usable.
#pragma once

#include <stdexcept>
#include <string>

#include "paro/cuda/params.h"
#include "paro/plan_words.h"

namespace paro::cuda {

// What the driver or its lack kept from running. The text names the call or the kernel, and what to do where one can.
class LaunchError : public std::runtime_error {
   public:
    LaunchError(const std::string& text, bool out_of_memory)
        : std::runtime_error(text), out_of_memory_(out_of_memory) {}
    bool out_of_memory() const noexcept { return out_of_memory_; }

   private:
    bool out_of_memory_;
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
void launch_pack_int8(const AttentionParams& p, Stream stream);
void launch_pack_queries_int8(const AttentionParams& p, Stream stream);
void launch_pack_keys_int8(const AttentionParams& p, Stream stream);
// The attention itself; needs the packed tiles. o is written whole.
void launch_attention_portable_int8(const AttentionParams& p, Stream stream);
void launch_attention_hopper_int8(const AttentionParams& p, Stream stream);
// Without quantisation; reads q, k, v in their original places. Pools for the tail first.
void launch_attention_portable_bf16(const AttentionParams& p, Stream stream);

// The path that a call takes on a device of this compute capability, major * 10 + minor: `path` itself unless
// automatic. Throws Error where it cannot run, saying why.
Path choose_path(const AttentionParams& p, Path path, int capability);
// The attention of a call on a path that choose_path returned; int8 needs the packed tiles.
void launch_attention(const AttentionParams& p, Path path, Stream stream);

// Bytes from one place in device memory to another.
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream);

}  // namespace paro::cuda
