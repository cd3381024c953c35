// head_dim 64.
#include "variant.cuh"

namespace paro::cuda::bench {

template <>
std::span<const HopperVariant> variants_of<64>() {
    using O = HopperOptions;
    static constexpr HopperVariant all[] = {
        variant<64, 128, 2, O{.early = true}>("ahead early"),
        variant<64, 128, 2, O{.early = true, .weights = {.half_bytes = true}}>("ahead early halfbytes"),
        variant<64, 128, 2, O{}>("ahead"),
        variant<64, 128, 2, O{.ahead = false, .early = true}>("early"),
        variant<64, 128, 2, O{.ahead = false, .in_turns = true}>("turns"),
        variant<64, 128, 2, O{.early = true, .weights = {.poly = 1}}>("ahead early poly1"),
        variant<64, 128, 2, O{.early = true, .weights = {.poly = 2}}>("ahead early poly2"),
        variant<64, 128, 2, O{.early = true, .weights = {.half_exp = true}}>("ahead early half"),
        variant<64, 128, 2, O{.early = true, .trace = true}>("ahead early trace"),
        variant<64, 64, 2, O{.early = true}>("ahead early"),
        variant<64, 64, 2, O{.ahead = false, .early = true, .ctas = 2}>("early x2"),
        variant<64, 64, 1, O{.early = true, .ctas = 2}>("ahead early x2"),
        variant<64, 64, 1, O{.ahead = false, .early = true, .ctas = 3}>("early x3"),
        variant<64, 128, 1, O{.early = true, .ctas = 2}>("ahead early x2"),
    };
    return all;
}
template void take_trace_of<64>(TraceSums&);

}  // namespace paro::cuda::bench
