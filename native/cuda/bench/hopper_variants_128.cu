// head_dim 128.
#include "variant.cuh"

namespace paro::cuda::bench {

template <>
std::span<const HopperVariant> variants_of<128>() {
    using O = HopperOptions;
    static constexpr HopperVariant all[] = {
        variant<128, 128, 2, O{}>("plain"),      variant<128, 128, 2, O{.trace = true}>("trace"),
        variant<128, 64, 2, O{}>("plain"),       variant<128, 128, 1, O{.ctas = 2}>("x2"),
        variant<128, 64, 1, O{.ctas = 2}>("x2"),
    };
    return all;
}
template void take_trace_of<128>(TraceSums&);

}  // namespace paro::cuda::bench
