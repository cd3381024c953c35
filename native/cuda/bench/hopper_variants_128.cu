// Variants of the Hopper kernel for head_dim 128, which hopper_variants.cpp lists.
#define PARO_TRACE
#include "attention_hopper_int8.cuh"

namespace paro::cuda {

PARO_HOPPER_KERNEL(paro_bench_plain_d128_q128_k128, 128, 128, 128, HopperOptions{false, 1})
PARO_HOPPER_KERNEL(paro_bench_trace_d128_q128_k128, 128, 128, 128, HopperOptions{true, 1})
PARO_HOPPER_KERNEL(paro_bench_plain_d128_q128_k64, 128, 128, 64, HopperOptions{false, 1})
PARO_HOPPER_KERNEL(paro_bench_x2_d128_q64_k128, 128, 64, 128, HopperOptions{false, 2})
PARO_HOPPER_KERNEL(paro_bench_x2_d128_q64_k64, 128, 64, 64, HopperOptions{false, 2})
PARO_KERNEL(paro_bench_take_trace_d128, (1), (unsigned long long* out), take_trace(out))

}  // namespace paro::cuda
