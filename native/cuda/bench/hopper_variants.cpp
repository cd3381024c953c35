#include "hopper_variants.h"

#include "kernels.h"
#include "launch_hopper.h"

namespace paro::cuda {

#define PARO_VARIANT_KERNELS(D)                  \
    PARO_EACH(paro_bench_plain_d##D##_q128_k128) \
    PARO_EACH(paro_bench_trace_d##D##_q128_k128) \
    PARO_EACH(paro_bench_plain_d##D##_q128_k64)  \
    PARO_EACH(paro_bench_x2_d##D##_q64_k128)     \
    PARO_EACH(paro_bench_x2_d##D##_q64_k64)      \
    PARO_EACH(paro_bench_take_trace_d##D)
namespace kernels {
PARO_VARIANT_KERNELS(64)
PARO_VARIANT_KERNELS(128)
PARO_EACH(paro_bench_x3_d64_q64_k64)
}  // namespace kernels

namespace bench {

#define PARO_VARIANTS(D)                                                               \
    {"plain", D, 128, 128, {false, 1}, kernels::paro_bench_plain_d##D##_q128_k128},    \
        {"trace", D, 128, 128, {true, 1}, kernels::paro_bench_trace_d##D##_q128_k128}, \
        {"plain", D, 128, 64, {false, 1}, kernels::paro_bench_plain_d##D##_q128_k64},  \
        {"x2", D, 64, 128, {false, 2}, kernels::paro_bench_x2_d##D##_q64_k128},        \
        {"x2", D, 64, 64, {false, 2}, kernels::paro_bench_x2_d##D##_q64_k64},

std::span<const HopperVariant> hopper_variants(int head_dim) {
    static const HopperVariant narrow[] = {
        PARO_VARIANTS(64){"x3", 64, 64, 64, {false, 3}, kernels::paro_bench_x3_d64_q64_k64},
    };
    static const HopperVariant wide[] = {PARO_VARIANTS(128)};
    return head_dim == 64 ? std::span<const HopperVariant>(narrow) : wide;
}

void launch(const HopperVariant& variant, const AttentionParams& p, Stream stream) {
    launch_hopper(variant.kernel, variant.options, p, stream);
}

void take_trace(int head_dim, unsigned long long* sums, Stream stream) {
    launch_kernel(head_dim == 64 ? kernels::paro_bench_take_trace_d64 : kernels::paro_bench_take_trace_d128, 1, 1, 0,
                  stream, sums);
}

}  // namespace bench
}  // namespace paro::cuda
