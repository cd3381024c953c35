#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <numeric>

#include "expect_error.h"
#include "paro/axis_order.h"

using namespace paro;

TEST_CASE("axis orders: names and axes round-trip", "[axis_order]") {
    for (const AxisOrder order : kAxisOrders) {
        CHECK(parse_axis_order(to_string(order)) == order);
        for (int i = 0; i < 3; ++i) CHECK(to_string(order)[i] == "FHW"[axes(order)[i]]);
    }
    EXPECT_ERROR(parse_axis_order("fhw"), "axis order");
    EXPECT_ERROR(parse_axis_order("FHW "), "axis order");
    EXPECT_ERROR(parse_axis_order(""), "axis order");
    EXPECT_ERROR(to_string(static_cast<AxisOrder>(6)), "axis order");
    EXPECT_ERROR(axes(static_cast<AxisOrder>(255)), "axis order");
}

TEST_CASE("axis orders: the permutation walks the slowest axis first", "[axis_order]") {
    const Grid grid{3, 5, 7};
    for (const AxisOrder order : kAxisOrders) {
        INFO(to_string(order));
        const std::vector<std::int32_t> tokens = permutation(grid, order);
        REQUIRE(static_cast<std::int64_t>(tokens.size()) == grid.size());
        // The coordinates of consecutive tokens, read in the order's axes, must be lexicographically increasing.
        std::array<std::int32_t, 3> before = {-1, -1, -1};
        for (const std::int32_t token : tokens) {
            const std::array<std::int32_t, 3> at = {token / 35, token / 7 % 5, token % 7};
            const std::array<std::int32_t, 3> now = {at[axes(order)[0]], at[axes(order)[1]], at[axes(order)[2]]};
            REQUIRE(before < now);
            before = now;
        }
        std::vector<std::int32_t> sorted = tokens;
        std::sort(sorted.begin(), sorted.end());
        for (std::int32_t i = 0; i < 105; ++i) REQUIRE(sorted[i] == i);
    }
    CHECK(permutation(grid, AxisOrder::WFH)[1] == 7);
    CHECK(permutation(grid, AxisOrder::WHF)[1] == 35);
}

TEST_CASE("axis orders: the inverse undoes a permutation", "[axis_order]") {
    for (const Grid& grid : {Grid{3, 5, 7}, Grid{1, 9, 4}, Grid{1, 1, 1}}) {
        for (const AxisOrder order : kAxisOrders) {
            const std::vector<std::int32_t> forward = permutation(grid, order);
            const std::vector<std::int32_t> back = inverse_permutation(forward);
            for (std::int32_t i = 0; i < grid.size(); ++i) REQUIRE(back[forward[i]] == i);
        }
    }
    EXPECT_ERROR(inverse_permutation({0, 2}), "permutation");
    EXPECT_ERROR(inverse_permutation({0, -1}), "permutation");
    EXPECT_ERROR(inverse_permutation({0, 1, 1}), "permutation");
    CHECK(inverse_permutation({}).empty());
}

TEST_CASE("axis orders: bad grids are named", "[axis_order]") {
    EXPECT_ERROR(validate(Grid{0, 2, 3}), "grid.f");
    EXPECT_ERROR(validate(Grid{1, -2, 3}), "grid.h");
    EXPECT_ERROR(validate(Grid{1, 2, 0}), "grid.w");
    constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
    CHECK_NOTHROW(validate(Grid{1, 1, most}));
    EXPECT_ERROR(validate(Grid{2, 1, most}), "grid must hold");
    EXPECT_ERROR(validate(Grid{most, most, most}), "grid must hold");
    EXPECT_ERROR(permutation(Grid{1 << 11, 1 << 10, 1 << 10}, AxisOrder::FHW), "grid must hold");
}
