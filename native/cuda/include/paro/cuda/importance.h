// Exact importance: post-softmax mass of every grid block, each head in its order. As in launch.h, all work goes to
// `stream` of the current device and nothing waits.
#pragma once

#include "paro/cuda/params.h"

namespace paro::cuda {

struct ImportanceParams {
    // q, k, batch, heads, head_dim, dtype (f16 or bf16), sm_scale, and what set_sizes fills for blocks of 64 are used.
    AttentionParams base;
    const std::int32_t* orders;  // [heads] AxisOrder
    float* out;                  // [slots][q.grid_blocks][kv.grid_blocks] written: sums of probabilities
    Path path;                   // portable or hopper
    std::int32_t workers;        // CTAs
    float* block_logs;           // scratch [workers][kv.grid_blocks][128] log2 of each row's sum over a block
};

// Fills path and workers; base is filled. capability: major * 10 + minor. Throws Error naming the argument, where
// `path` does not run here too.
void set_importance(ImportanceParams& p, Path path, int capability);
std::size_t importance_bytes(const ImportanceParams& p);
void place_importance(ImportanceParams& p, void* base);

// One launch, one pass over q k^T: the sum over a block is kept as a logarithm until the row's sum over all keys is
// known. Tiles of 128 are sums of these of 64. Rows that are not finite are left out.
void launch_importance(const ImportanceParams& p, Stream stream);

}  // namespace paro::cuda
