// head_dim 128.
#include "variant.cuh"

namespace paro::cuda::bench {

template <>
std::span<const HopperVariant> variants_of<128>() {
    using O = HopperOptions;
    static constexpr HopperVariant all[] = {
        variant<128, 128, 2, O{.ahead = false, .early = true}>("early"),
        variant<128, 128, 2, O{.ahead = false, .early = true, .weights = {.half_bytes = true}}>("early halfbytes"),
        variant<128, 128, 2, O{.ahead = false}>("plain"),
        variant<128, 128, 2, O{.ahead = false, .in_turns = true}>("turns"),
        variant<128, 128, 2, O{.ahead = false, .early = true, .weights = {.poly = 1}}>("early poly1"),
        variant<128, 128, 2, O{.ahead = false, .in_turns = true, .weights = {.poly = 1}}>("turns poly1"),
        variant<128, 128, 2, O{.ahead = false, .early = true, .weights = {.half_exp = true}}>("early half"),
        variant<128, 128, 2, O{.ahead = false, .early = true, .trace = true}>("early trace"),
        variant<128, 128, 2, O{.ahead = false, .in_turns = true, .trace = true}>("turns trace"),
        variant<128, 64, 2, O{.early = true}>("ahead early"),
        variant<128, 64, 2, O{}>("ahead"),
        variant<128, 64, 2, O{.ahead = false, .early = true}>("early"),
        variant<128, 64, 2, O{.early = true, .trace = true}>("ahead early trace"),
        variant<128, 128, 1, O{.ahead = false, .early = true, .ctas = 2}>("early x2"),
        variant<128, 64, 1, O{.early = true, .ctas = 2}>("ahead early x2"),
        variant<128, 64, 1, O{.ahead = false, .early = true, .ctas = 2}>("early x2"),
    };
    return all;
}
template void take_trace_of<128>(TraceSums&);

}  // namespace paro::cuda::bench
