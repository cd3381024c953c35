// The launch of a kernel of attention_hopper_int8.cuh, whatever it was compiled with.
#pragma once

#include "cta_shapes.h"
#include "launch_kernel.h"

namespace paro::cuda {

// `options`: what the kernel was compiled with; its sizes are those of `p`.
void launch_hopper(Kernel& kernel, const HopperOptions& options, const AttentionParams& p, Stream stream);

}  // namespace paro::cuda
