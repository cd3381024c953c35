// Masks found on the fly: blocks scored by pooled queries and keys in each head's order. As in launch.h, all work goes
// to `stream` of the current device and nothing waits.
#pragma once

#include "paro/cuda/params.h"

namespace paro::cuda {

struct DynamicMaskParams {
    // q, k, batch, heads, head_dim, dtype (any), sm_scale, and what set_sizes fills are used; of the plan the orders.
    AttentionParams base;
    const float* densities;  // [heads] in (0, 1]
    std::int32_t* schedule;  // [heads][q.grid_blocks] written: the rows as they come, since all have as many blocks
    std::uint32_t* masks;    // [heads][q.grid_blocks][mask_words] written
    // Scratch: means as two bf16 that add up, [slots][grid blocks][head_dim]; those of q times sm_scale * log2(e).
    std::uint16_t *q_high, *q_low, *k_high, *k_low;
};

// Bytes of scratch, and its pieces in it.
std::size_t dynamic_mask_bytes(const DynamicMaskParams& p);
void place_dynamic_mask(DynamicMaskParams& p, void* base);

// Blocks' scores: softmax(mean q . mean k) over the grid's key blocks, the last one weighed by its tokens, mean over
// the batch. A row keeps its round(density * blocks) greatest, at least one; ties go to the lower index. Two launches.
// Throws Error where rows are too long.
void launch_dynamic_mask(const DynamicMaskParams& p, Stream stream);

}  // namespace paro::cuda
