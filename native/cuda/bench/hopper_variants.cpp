#include "hopper_variants.h"

namespace paro::cuda::bench {

template <int D>
std::span<const HopperVariant> variants_of();
template <int D>
void take_trace_of(TraceSums& sums);
template <>
std::span<const HopperVariant> variants_of<64>();
template <>
std::span<const HopperVariant> variants_of<128>();
extern template void take_trace_of<64>(TraceSums&);
extern template void take_trace_of<128>(TraceSums&);

std::span<const HopperVariant> hopper_variants(int head_dim) {
    return head_dim == 128 ? variants_of<128>() : variants_of<64>();
}
void take_trace(int head_dim, TraceSums& sums) { head_dim == 128 ? take_trace_of<128>(sums) : take_trace_of<64>(sums); }

}  // namespace paro::cuda::bench
