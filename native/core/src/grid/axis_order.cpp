#include "paro/axis_order.h"

#include <limits>
#include <string>

#include "paro/error.h"

namespace paro {

namespace {

constexpr std::array<std::string_view, 6> kNames = {"FHW", "FWH", "HFW", "HWF", "WFH", "WHF"};
constexpr std::array<std::array<int, 3>, 6> kAxes = {
    {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}};

std::size_t index_of(AxisOrder order) {
    const auto index = static_cast<std::size_t>(order);
    require(index < kNames.size(), "axis order", "must be a number of 0 to 5", index);
    return index;
}

}  // namespace

void validate(const Grid& grid) {
    require(grid.f >= 1, "grid.f", "must be at least 1", grid.f);
    require(grid.h >= 1, "grid.h", "must be at least 1", grid.h);
    require(grid.w >= 1, "grid.w", "must be at least 1", grid.w);
    const std::int64_t limit = std::numeric_limits<std::int32_t>::max();
    const std::int64_t frame = std::int64_t{grid.h} * grid.w;  // at most 2^62; times f it could overflow
    if (frame > limit / grid.f) {
        fail("grid", "must hold at most 2^31 - 1 tokens",
             std::to_string(grid.f) + "x" + std::to_string(grid.h) + "x" + std::to_string(grid.w));
    }
}

std::string_view to_string(AxisOrder order) { return kNames[index_of(order)]; }

AxisOrder parse_axis_order(std::string_view name) {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
        if (kNames[i] == name) return kAxisOrders[i];
    }
    fail("axis order", "must be one of FHW FWH HFW HWF WFH WHF", std::string(name.substr(0, 80)));
}

std::array<int, 3> axes(AxisOrder order) { return kAxes[index_of(order)]; }

std::vector<std::int32_t> permutation(const Grid& grid, AxisOrder order) {
    validate(grid);
    const std::array<int, 3> axis = axes(order);
    const std::array<std::int32_t, 3> sides = grid.sides();
    const std::array<std::int32_t, 3> stride = {grid.h * grid.w, grid.w, 1};
    std::vector<std::int32_t> result(static_cast<std::size_t>(grid.size()));
    std::size_t next = 0;
    for (std::int32_t a = 0; a < sides[axis[0]]; ++a) {
        for (std::int32_t b = 0; b < sides[axis[1]]; ++b) {
            const std::int32_t base = a * stride[axis[0]] + b * stride[axis[1]];
            for (std::int32_t c = 0; c < sides[axis[2]]; ++c) result[next++] = base + c * stride[axis[2]];
        }
    }
    return result;
}

std::vector<std::int32_t> inverse_permutation(const std::vector<std::int32_t>& permutation) {
    const auto size = static_cast<std::int64_t>(permutation.size());
    std::vector<std::int32_t> result(permutation.size(), -1);
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int32_t place = permutation[i];
        require(place >= 0 && place < size, "permutation", "must hold indices below its size", place);
        require(result[place] < 0, "permutation", "must hold every index once", place);
        result[place] = static_cast<std::int32_t>(i);
    }
    return result;
}

}  // namespace paro
