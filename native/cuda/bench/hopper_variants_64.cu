// head_dim 64.
#include "variant.cuh"

namespace paro::cuda::bench {

template <>
std::span<const HopperVariant> variants_of<64>() {
    using O = HopperOptions;
    static constexpr HopperVariant all[] = {
        variant<64, 128, 2, O{}>("plain"),      variant<64, 128, 2, O{.trace = true}>("trace"),
        variant<64, 64, 2, O{}>("plain"),       variant<64, 128, 1, O{.ctas = 2}>("x2"),
        variant<64, 64, 1, O{.ctas = 2}>("x2"), variant<64, 64, 1, O{.ctas = 3}>("x3"),
    };
    return all;
}
template void take_trace_of<64>(TraceSums&);

}  // namespace paro::cuda::bench
