#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "expect_error.h"
#include "kernel_fixtures.h"
#include "paro/importance.h"

using namespace paro;
using paro::test::random_kernel;
using paro::test::rebuild_map;

namespace {

// Greatest deviation from the O(N^2) double sum, relative to the block's own mass (or to 1e-9 of a kernel of order 1).
double worst_error(const BlockMap& map, const std::vector<float>& pairs, const Grid& grid) {
    const std::vector<std::int32_t> tokens = permutation(grid, map.order);
    std::vector<double> sum(map.value.size());
    for (std::int64_t q = 0; q < grid.size(); ++q) {
        for (std::int64_t k = 0; k < grid.size(); ++k) {
            sum[q / map.block_q * map.cols + k / map.block_kv] += pairs[tokens[q] * grid.size() + tokens[k]];
        }
    }
    double worst = 0.0;
    for (std::size_t i = 0; i < sum.size(); ++i) {
        worst = std::max(worst, std::abs(sum[i] - map.value[i]) / (sum[i] + 1e-9));
    }
    return worst;
}

BlockMap map_of(std::int64_t rows, std::int64_t cols, std::vector<float> values) {
    BlockMap map;
    map.rows = rows;
    map.cols = cols;
    map.value = std::move(values);
    return map;
}

}  // namespace

TEST_CASE("importance: equals the sum over all pairs in every order", "[importance]") {
    struct Case {
        Grid grid;
        std::int32_t block_q, block_kv;
    };
    for (const Case& c :
         {Case{{10, 16, 22}, 64, 64}, Case{{10, 16, 22}, 128, 64}, Case{{5, 6, 7}, 64, 128}, Case{{3, 5, 7}, 128, 128},
          Case{{1, 9, 23}, 16, 16}, Case{{7, 1, 12}, 5, 9}, Case{{1, 40, 1}, 7, 7}, Case{{2, 3, 4}, 1, 1},
          Case{{4, 4, 4}, 8, 8}, Case{{1, 1, 1}, 64, 64}}) {
        for (const Bins& bins : {Bins::even(c.grid), Bins::signed_offsets(c.grid)}) {
            const OffsetKernel kernel = random_kernel(bins, 5);
            const std::vector<float> pairs = rebuild_map(kernel, c.grid);
            for (const AxisOrder order : kAxisOrders) {
                INFO(c.grid.f << "x" << c.grid.h << "x" << c.grid.w << " " << c.block_q << "x" << c.block_kv << " "
                              << to_string(order));
                const BlockMap map = kernel_sums(kernel, c.grid, order, c.block_q, c.block_kv);
                CHECK(map.order == order);
                CHECK(map.block_q == c.block_q);
                CHECK(map.block_kv == c.block_kv);
                CHECK(worst_error(map, pairs, c.grid) < 2e-7);
            }
        }
    }
}

TEST_CASE("importance: a kernel of another grid's bins, mixed even and signed", "[importance]") {
    const Grid grid{5, 6, 9};
    const Bins bins{signed_bins(3), even_bins(14), AxisBins{{-6, -1, 0, 2, 30}}};
    const OffsetKernel kernel = random_kernel(bins, 9);
    const std::vector<float> pairs = rebuild_map(kernel, grid);
    for (const AxisOrder order : kAxisOrders) {
        CHECK(worst_error(kernel_sums(kernel, grid, order, 16, 16), pairs, grid) < 2e-7);
    }
}

TEST_CASE("importance: every query has the same mass, and the total stays", "[importance]") {
    for (const Grid& grid : {Grid{5, 6, 9}, Grid{10, 16, 22}, Grid{1, 9, 23}}) {
        for (const Bins& bins : {Bins::even(grid), Bins::signed_offsets(grid)}) {
            const OffsetKernel kernel = random_kernel(bins, 21);
            for (const AxisOrder order : kAxisOrders) {
                const BlockMap sums = kernel_sums(kernel, grid, order, 64, 32),
                               map = importance(kernel, grid, order, 64, 32);
                CHECK(map.total() == Catch::Approx(sums.total()).epsilon(1e-5));
                for (std::int64_t row = 0; row < map.rows; ++row) {
                    double before = 0.0, after = 0.0;
                    for (std::int64_t col = 0; col < map.cols; ++col) {
                        before += sums.value[row * map.cols + col];
                        after += map.value[row * map.cols + col];
                    }
                    const auto queries = static_cast<double>(std::min<std::int64_t>(64, grid.size() - row * 64));
                    CHECK(after / queries ==
                          Catch::Approx(sums.total() / static_cast<double>(grid.size())).epsilon(1e-4));
                    // Within a row nothing moves.
                    const float scale = static_cast<float>(after / before);
                    CHECK(map.value[row * map.cols] == Catch::Approx(sums.value[row * map.cols] * scale).epsilon(1e-4));
                }
            }
        }
    }
    OffsetKernel nothing{Bins::even({4, 4, 4}), {}};
    nothing.value.assign(static_cast<std::size_t>(nothing.bins.size()), 0.0f);
    CHECK(importance(nothing, {4, 4, 4}, AxisOrder::FHW, 8, 8).total() == 0.0);
}

TEST_CASE("importance: memory that is used again holds nothing of the map before", "[importance]") {
    const Grid large{10, 16, 22}, small{3, 5, 7};
    BlockMap map;
    importance(random_kernel(Bins::even(large), 3), large, AxisOrder::WHF, 64, 64, map);
    const OffsetKernel kernel = random_kernel(Bins::signed_offsets(small), 4);
    importance(kernel, small, AxisOrder::HWF, 16, 8, map);
    const BlockMap fresh = importance(kernel, small, AxisOrder::HWF, 16, 8);
    CHECK(map.order == AxisOrder::HWF);
    CHECK((map.rows == fresh.rows && map.cols == fresh.cols && map.block_q == 16 && map.block_kv == 8));
    CHECK(map.value == fresh.value);
}

TEST_CASE("importance: mass far from everything is zero, never negative", "[importance]") {
    const Grid grid{9, 11, 13};
    OffsetKernel kernel{Bins::even(grid), {}};
    kernel.value.assign(static_cast<std::size_t>(kernel.bins.size()), 0.0f);
    kernel.value[kernel.bins.index(0, 0, 0)] = 0.9f;
    for (const AxisOrder order : kAxisOrders) {
        const BlockMap map = importance(kernel, grid, order, 32, 32);
        for (std::int64_t i = 0; i < map.rows * map.cols; ++i) {
            if (i / map.cols != i % map.cols) REQUIRE((map.value[i] >= 0.0f && map.value[i] < 1e-9f));
        }
        CHECK(map.total() == Catch::Approx(0.9 * 9 * 11 * 13));
    }
}

TEST_CASE("importance: exact rows add up as the kernel's sum does", "[importance]") {
    const Grid grid{3, 5, 7};
    const OffsetKernel kernel = random_kernel(Bins::signed_offsets(grid), 2);
    const std::vector<float> pairs = rebuild_map(kernel, grid);
    std::vector<std::int32_t> queries(105);
    std::iota(queries.begin(), queries.end(), 0);
    std::reverse(queries.begin(), queries.end());
    std::vector<float> rows;
    for (const std::int32_t query : queries)
        rows.insert(rows.end(), pairs.begin() + query * 105, pairs.begin() + (query + 1) * 105);
    for (const AxisOrder order : kAxisOrders) {
        BlockMap map = empty_map(grid, order, 16, 32);
        accumulate_rows(map, grid, std::span(queries).first(40), std::span(rows).first(40 * 105));
        accumulate_rows(map, grid, std::span(queries).subspan(40), std::span(rows).subspan(40 * 105));
        CHECK(worst_error(map, pairs, grid) < 1e-6);
    }
}

TEST_CASE("importance: bad input is named", "[importance]") {
    const Grid grid{3, 5, 7};
    const OffsetKernel kernel = random_kernel(Bins::even(grid), 1);
    EXPECT_ERROR(importance(kernel, {3, 0, 7}, AxisOrder::FHW, 64, 64), "grid.h");
    EXPECT_ERROR(importance(kernel, grid, AxisOrder::FHW, 0, 64), "block_q");
    EXPECT_ERROR(importance(kernel, grid, AxisOrder::FHW, 64, 4097), "block_kv");
    EXPECT_ERROR(importance(kernel, grid, static_cast<AxisOrder>(6), 64, 64), "axis order");
    EXPECT_ERROR(empty_map({1, 1 << 15, 1 << 15}, AxisOrder::FHW, 64, 64), "grid must have at most 2^28");
    OffsetKernel bad = kernel;
    bad.value.pop_back();
    EXPECT_ERROR(importance(bad, grid, AxisOrder::FHW, 64, 64), "kernel.value");
    bad = kernel;
    bad.value[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_ERROR(importance(bad, grid, AxisOrder::FHW, 64, 64), "kernel.value must be finite");
    bad.value[3] = -1.0f;
    EXPECT_ERROR(importance(bad, grid, AxisOrder::FHW, 64, 64),
                 "kernel.value must be finite and not negative (got -1)");

    BlockMap map = empty_map(grid, AxisOrder::FHW, 16, 16);
    const std::vector<float> row(105, 0.0f);
    const std::vector<std::int32_t> query = {104}, outside = {105};
    EXPECT_ERROR(accumulate_rows(map, grid, query, std::span(row).first(104)), "rows must have");
    EXPECT_ERROR(accumulate_rows(map, grid, outside, row), "queries");
    EXPECT_ERROR(accumulate_rows(map, {3, 5, 9}, query, std::vector<float>(135)),
                 "map must have the blocks of this grid, 9 x 9 (got 7 x 7)");
    map.value.pop_back();
    EXPECT_ERROR(accumulate_rows(map, grid, query, row), "map.value");
}

TEST_CASE("mask: exactly the wanted number, greatest first, ties to the lower index", "[importance]") {
    // 3 x 5; 0.4 * 15 = 6: four 9s, then the first two of the 5s in row order.
    const BlockMap map = map_of(3, 5, {9, 1, 5, 1, 1, 5, 9, 5, 1, 1, 9, 1, 1, 9, 5});
    const BlockMask mask = make_mask(map, 0.4);
    const std::vector<int> expected = {1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0};
    for (int i = 0; i < 15; ++i) CHECK(mask.get(i / 5, i % 5) == (expected[i] == 1));
    CHECK(retained_mass(map, mask) == Catch::Approx(46.0 / 63.0));

    const BlockMap uniform = map_of(7, 5, std::vector<float>(35, 2.0f));
    CHECK(make_mask(uniform, 1.0) == BlockMask::full(7, 5));
    const BlockMask most = make_mask(uniform, 0.9);
    CHECK(most.count() == 32);
    CHECK_FALSE(most.get(6, 2));
}

TEST_CASE("mask: the count is round(density * blocks) at odd sizes", "[importance]") {
    const Grid grid{5, 6, 7};
    for (const AxisOrder order : kAxisOrders) {
        const BlockMap map = importance(random_kernel(Bins::even(grid), 4), grid, order, 16, 8);
        for (const double density : {0.2, 0.3, 0.5, 0.77, 1.0}) {
            const BlockMask mask = make_mask(map, density);
            std::int64_t extra = 0;  // rows that hold only their best block may be there by the rule about empty rows
            for (std::int64_t row = 0; row < map.rows; ++row) extra += mask.row_count(row) == 1;
            const std::int64_t wanted = std::llround(density * static_cast<double>(map.rows * map.cols));
            CHECK(mask.count() >= wanted);
            CHECK(mask.count() <= wanted + extra);
            float least_in = INFINITY, greatest_out = 0.0f;
            for (std::int64_t i = 0; i < map.rows * map.cols; ++i) {
                if (mask.row_count(i / map.cols) == 1) continue;
                const bool in = mask.get(i / map.cols, i % map.cols);
                if (in) least_in = std::min(least_in, map.value[i]);
                if (!in) greatest_out = std::max(greatest_out, map.value[i]);
            }
            CHECK(least_in >= greatest_out);
        }
    }
}

TEST_CASE("mask: a query tile left without a block gets its best on top", "[importance]") {
    const BlockMap map = map_of(4, 3, {9, 8, 7, 1, 3, 3, 0, 0, 0, 6, 5, 4});
    const BlockMask mask = make_mask(map, 0.5);  // the six greatest lie in the first and last rows
    CHECK(mask.count() == 8);
    CHECK(mask.density() == Catch::Approx(8.0 / 12.0));
    CHECK(mask.get(1, 1));
    CHECK_FALSE(mask.get(1, 2));
    CHECK(mask.get(2, 0));
    // Rounded to none: every row still gets one.
    CHECK(make_mask(map, 0.01).count() == 4);
}

TEST_CASE("mask: bad input is named", "[importance]") {
    BlockMap map = map_of(2, 2, {1, 2, 3, 4});
    EXPECT_ERROR(make_mask(map, 0.0), "density");
    EXPECT_ERROR(make_mask(map, 1.01), "density");
    EXPECT_ERROR(make_mask(map, std::numeric_limits<double>::quiet_NaN()), "density");
    EXPECT_ERROR(make_mask(map_of(2, 2, {1, 2, 3}), 0.5), "map.value");
    EXPECT_ERROR(make_mask(BlockMap{}, 0.5), "map must have blocks");
    EXPECT_ERROR(retained_mass(map, BlockMask(2, 3)), "mask must have 2 x 2 blocks (got 2 x 3)");
    map.value[2] = std::numeric_limits<float>::infinity();
    EXPECT_ERROR(make_mask(map, 0.5), "map.value must be finite");
    CHECK(retained_mass(map_of(1, 2, {0, 0}), BlockMask(1, 2)) == 1.0);
}
