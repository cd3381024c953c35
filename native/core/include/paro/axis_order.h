// The six orders in which a grid of F x H x W tokens can be flattened (PAROAttention, arXiv 2506.16054, section 3).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace paro {

// Slowest axis first: FHW is the order in which models hand tokens over.
enum class AxisOrder : std::uint8_t { FHW, FWH, HFW, HWF, WFH, WHF };

inline constexpr std::array<AxisOrder, 6> kAxisOrders = {AxisOrder::FHW, AxisOrder::FWH, AxisOrder::HFW,
                                                         AxisOrder::HWF, AxisOrder::WFH, AxisOrder::WHF};

// Sides in patches, each at least 1; the product must fit 31 bits.
struct Grid {
    std::int32_t f = 1, h = 1, w = 1;

    std::int64_t size() const { return std::int64_t{f} * h * w; }
    std::array<std::int32_t, 3> sides() const { return {f, h, w}; }
    friend bool operator==(const Grid&, const Grid&) = default;
};

// Throws Error if a side is below 1 or the product exceeds 2^31 - 1.
void validate(const Grid& grid);

std::string_view to_string(AxisOrder order);
// Throws Error for anything but the six upper-case names.
AxisOrder parse_axis_order(std::string_view name);

// Axis numbers (0 = F, 1 = H, 2 = W), slowest first.
std::array<int, 3> axes(AxisOrder order);

// permutation[i] = index in the original FHW order of the i-th token in `order`; grid.size() entries.
std::vector<std::int32_t> permutation(const Grid& grid, AxisOrder order);
std::vector<std::int32_t> inverse_permutation(const std::vector<std::int32_t>& permutation);

}  // namespace paro
