#include <algorithm>
#include <array>
#include <catch2/benchmark/catch_benchmark.hpp>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "expect_error.h"
#include "kernel_fixtures.h"
#include "paro/order_select.h"

using namespace paro;
using paro::test::random_kernel;
using paro::test::rebuild_map;

namespace {

// Attention that stays on its own column along the given axis.
OffsetKernel along(const Grid& grid, int axis) {
    OffsetKernel kernel{Bins::even(grid), {}};
    const std::int32_t reach[3] = {axis == 0 ? 99 : 0, axis == 1 ? 99 : 0, axis == 2 ? 99 : 0};
    for (const std::int32_t f : kernel.bins.f.edges) {
        for (const std::int32_t h : kernel.bins.h.edges) {
            for (const std::int32_t w : kernel.bins.w.edges) {
                kernel.value.push_back(f <= reach[0] && h <= reach[1] && w <= reach[2] ? 0.05f : 1e-6f);
            }
        }
    }
    return kernel;
}

// The definition, entry by entry.
PaperMetric slow_metric(const std::vector<float>& map, const Grid& grid, AxisOrder order, std::int32_t block) {
    const std::vector<std::int32_t> tokens = permutation(grid, order);
    const std::int64_t size = grid.size(), blocks = (size + block - 1) / block;
    PaperMetric result;
    for (std::int64_t i = 0; i < blocks * blocks; ++i) {
        double entries = 0, small = 0, sum = 0, greatest = 0;
        for (std::int64_t q = i / blocks * block; q < std::min(size, (i / blocks + 1) * block); ++q) {
            for (std::int64_t k = i % blocks * block; k < std::min(size, (i % blocks + 1) * block); ++k) {
                const float value = map[tokens[q] * size + tokens[k]];
                ++entries;
                small += value < 1e-3f;
                sum += value;
                greatest = std::max(greatest, static_cast<double>(value));
            }
        }
        result.sparsity += small >= 0.9 * entries ? 1.0 / static_cast<double>(blocks * blocks) : 0.0;
        result.incoherence += greatest / (sum / entries) / static_cast<double>(blocks * blocks);
    }
    return result;
}

}  // namespace

TEST_CASE("order select: a head that aggregates along one axis gets an order with that axis fastest",
          "[order_select]") {
    const Grid grid{10, 16, 22};
    for (int axis = 0; axis < 3; ++axis) {
        const OffsetKernel kernel = along(grid, axis);
        // Little more than the diagonal: whatever leaves the axis' lines whole keeps most.
        const OrderScores scores = score_orders(kernel, grid, 64, 64, 0.03);
        CHECK(axes(scores.by_retained_mass)[2] == axis);
        for (std::size_t i = 0; i < 6; ++i) {
            const double best = scores.retained[static_cast<std::size_t>(scores.by_retained_mass)];
            if (axes(kAxisOrders[i])[0] == axis) CHECK(scores.retained[i] < 0.6 * best);
        }
    }
}

TEST_CASE("order select: scores are the retained masses of the orders", "[order_select]") {
    const Grid grid{5, 6, 7};
    const OffsetKernel kernel = random_kernel(Bins::even(grid), 3);
    const OrderScores scores = score_orders(kernel, grid, 32, 16, 0.3);
    std::vector<BlockMap> maps;
    for (std::size_t i = 0; i < 6; ++i) {
        maps.push_back(importance(kernel, grid, kAxisOrders[i], 32, 16));
        CHECK(scores.retained[i] == Catch::Approx(retained_mass(maps[i], make_mask(maps[i], 0.3))).epsilon(1e-6));
        CHECK(scores.retained[i] <= scores.retained[static_cast<std::size_t>(scores.by_retained_mass)]);
    }
    CHECK(score_orders(maps, 0.3).retained == scores.retained);
    CHECK(score_orders(maps, 0.3).by_retained_mass == scores.by_retained_mass);
    std::swap(maps[1], maps[2]);
    EXPECT_ERROR(score_orders(maps, 0.3), "maps[1].order must be FWH (got HFW)");
    EXPECT_ERROR(score_orders(std::span(maps).first(5), 0.3), "maps must hold six maps, one per order (got 5)");
    EXPECT_ERROR(score_orders(kernel, grid, 32, 16, -0.1), "density");
    EXPECT_ERROR(score_orders(kernel, {0, 1, 1}, 32, 16, 0.3), "grid.f");
}

TEST_CASE("order select: orders that flatten alike share a score, ties to the earlier", "[order_select]") {
    const Grid image{1, 11, 13};
    const OffsetKernel kernel = random_kernel(Bins::signed_offsets(image), 8);
    const OrderScores scores = score_orders(kernel, image, 16, 16, 0.3);
    // FHW HFW HWF leave H before W, FWH WFH WHF turn it round.
    CHECK(scores.retained[0] == scores.retained[2]);
    CHECK(scores.retained[0] == scores.retained[3]);
    CHECK(scores.retained[1] == scores.retained[4]);
    CHECK(scores.retained[1] == scores.retained[5]);
    CHECK(scores.retained[0] != scores.retained[1]);
    CHECK((scores.by_retained_mass == AxisOrder::FHW || scores.by_retained_mass == AxisOrder::FWH));
    CHECK(score_orders(random_kernel(Bins::even({1, 1, 9}), 8), {1, 1, 9}, 4, 4, 0.5).by_retained_mass ==
          AxisOrder::FHW);
}

TEST_CASE("order select: the paper's metric from a kernel equals the definition", "[order_select]") {
    struct Case {
        Grid grid;
        std::int32_t block;
    };
    for (const Case& c : {Case{{5, 6, 7}, 16}, Case{{3, 5, 7}, 64}, Case{{1, 9, 13}, 8}, Case{{4, 3, 11}, 200}}) {
        for (const Bins& bins : {Bins::even(c.grid), Bins::signed_offsets(c.grid)}) {
            OffsetKernel kernel = random_kernel(bins, 6);
            for (float& value : kernel.value) value += 1e-7f;  // the definition divides by the mean
            const std::vector<float> map = rebuild_map(kernel, c.grid);
            for (const AxisOrder order : kAxisOrders) {
                INFO(c.grid.f << "x" << c.grid.h << "x" << c.grid.w << " " << to_string(order));
                const PaperMetric slow = slow_metric(map, c.grid, order, c.block);
                const PaperMetric fast = paper_metric(kernel, c.grid, order, c.block);
                CHECK(fast.sparsity == Catch::Approx(slow.sparsity));
                CHECK(fast.incoherence == Catch::Approx(slow.incoherence).epsilon(1e-5));
            }
        }
    }
}

TEST_CASE("order select: the paper's metric on a kernel without mass and on bad input", "[order_select]") {
    const Grid grid{3, 5, 7};
    OffsetKernel kernel{Bins::even(grid), {}};
    kernel.value.assign(static_cast<std::size_t>(kernel.bins.size()), 0.0f);
    const PaperMetric empty = paper_metric(kernel, grid, AxisOrder::FHW, 16);
    CHECK(empty.sparsity == 1.0);
    CHECK(empty.incoherence == 1.0);
    EXPECT_ERROR(paper_metric(kernel, grid, AxisOrder::FHW, 0), "block");
}

TEST_CASE("order select: both terms are normalised over the orders before they are weighed", "[order_select]") {
    // Sparsest: order 4. Most coherent: order 2. Order 5 is second in both.
    const std::array<PaperMetric, 6> metrics = {{{0.1, 90}, {0.2, 80}, {0.1, 10}, {0.3, 70}, {0.9, 60}, {0.7, 20}}};
    CHECK(select_by_paper_metric(metrics, 1.0) == kAxisOrders[4]);
    CHECK(select_by_paper_metric(metrics, 0.0) == kAxisOrders[2]);
    CHECK(select_by_paper_metric(metrics, 0.5) == kAxisOrders[5]);
    std::array<PaperMetric, 6> equal{};
    CHECK(select_by_paper_metric(equal) == AxisOrder::FHW);
    EXPECT_ERROR(select_by_paper_metric(metrics, 1.5), "alpha");
    EXPECT_ERROR(select_by_paper_metric(metrics, std::numeric_limits<double>::quiet_NaN()), "alpha");
    equal[3].incoherence = INFINITY;
    EXPECT_ERROR(select_by_paper_metric(equal), "metrics[3]");
}

// `paro_tests "[!benchmark]"` runs these; timings by head on one core.
TEST_CASE("order select: cost of scoring all six orders", "[order_select][!benchmark]") {
    const Grid small{10, 16, 22}, large{21, 45, 80};
    const OffsetKernel kernel = random_kernel(Bins::even(small), 1), far = random_kernel(Bins::even(large), 1);
    BENCHMARK("10x16x22, 64x64: six orders") { return score_orders(kernel, small, 64, 64, 0.3); };
    BENCHMARK("10x16x22, 64: paper metric of one order") { return paper_metric(kernel, small, AxisOrder::HWF, 64); };
    BENCHMARK("21x45x80, 128x128: importance in FHW") { return importance(far, large, AxisOrder::FHW, 128, 128); };
    BENCHMARK("21x45x80, 128x128: importance in HWF") { return importance(far, large, AxisOrder::HWF, 128, 128); };
    BENCHMARK("21x45x80, 128x128: six orders") { return score_orders(far, large, 128, 128, 0.3); };
    BENCHMARK("21x45x80, 128: paper metric of one order") { return paper_metric(far, large, AxisOrder::HWF, 128); };
    OffsetAccumulator rows(Bins::even(large), large);
    const std::vector<float> row(75600, 1e-5f);
    BENCHMARK("21x45x80: one observed row") { rows.add_row(40000, row); };
}

TEST_CASE("order select: on a large grid spread query tiles stand for all of them", "[order_select]") {
    const Grid grid{12, 30, 40};  // 14,400 tokens: 225 tiles of 64
    OffsetKernel kernel{Bins::even(grid), {}};
    for (std::int32_t f = 0; f < kernel.bins.f.count(); ++f) {
        for (std::int32_t h = 0; h < kernel.bins.h.count(); ++h) {
            for (std::int32_t w = 0; w < kernel.bins.w.count(); ++w) {
                kernel.value.push_back(static_cast<float>(1e-3 * std::exp(-0.9 * f - 0.15 * h - 0.3 * w)));
            }
        }
    }
    const OrderScores scores = score_orders(kernel, grid, 64, 64, 0.2);
    std::array<double, 6> all{};
    for (std::size_t i = 0; i < 6; ++i) {
        const BlockMap map = importance(kernel, grid, kAxisOrders[i], 64, 64);
        REQUIRE(map.rows > 2 * kScoredTiles);
        all[i] = retained_mass(map, make_mask(map, 0.2));
        CHECK(scores.retained[i] == Catch::Approx(all[i]).margin(0.01));
    }
    const auto best = static_cast<std::size_t>(std::max_element(all.begin(), all.end()) - all.begin());
    CHECK(all[static_cast<std::size_t>(scores.by_retained_mass)] > all[best] - 0.005);
    const std::array<double, 2> densities = {0.5, 0.1};
    OrderMap some;
    map_order(kernel, grid, AxisOrder::HWF, 128, 64, some);
    const std::vector<double> two = retained_of(some, densities);
    const BlockMap wide = importance(kernel, grid, AxisOrder::HWF, 128, 64);
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK(two[i] == Catch::Approx(retained_mass(wide, make_mask(wide, densities[i]))).margin(0.01));
    }
    EXPECT_ERROR(score_orders(kernel, grid, 64, 64, 0.0), "density");
    kernel.value[5] = -1.0f;
    EXPECT_ERROR(score_orders(kernel, grid, 64, 64, 0.3), "kernel.value");
}

TEST_CASE("order select: the maps that orders were scored by say what a head keeps at any density", "[order_select]") {
    // A small grid, seen whole, one with a side of 1, and one of which only some tiles are looked at.
    for (const Grid grid : {Grid{4, 6, 5}, Grid{1, 20, 13}, Grid{6, 40, 41}}) {
        OffsetKernel kernel{Bins::even(grid), {}};
        for (std::int64_t i = 0; i < kernel.bins.size(); ++i) {
            kernel.value.push_back(static_cast<float>(1 + i * 7919 % 1000) * 1e-6f);
        }
        // The memory of an earlier kernel is used again.
        std::array<OrderMap, 6> maps;
        for (OrderMap& map : maps) map.value.assign(1000000, 7.0f);
        const OrderScores scores = score_orders(kernel, grid, 64, 64, 0.3, &maps);
        CHECK(scores.retained == score_orders(kernel, grid, 64, 64, 0.3).retained);
        for (const AxisOrder order : kAxisOrders) {
            const AxisOrder same = same_flattened(grid, order);
            CHECK(same_flattened(grid, same) == same);
            CHECK((same == order || grid.f == 1));
            OrderMap alone;
            map_order(kernel, grid, order, 64, 64, alone);
            const std::array<double, 3> densities = {0.3, 0.1, 1.0};
            const OrderMap& kept = maps[static_cast<std::size_t>(same)];
            CHECK(kept.value == alone.value);
            CHECK(retained_of(kept, densities) == retained_of(alone, densities));
            CHECK(retained_of(kept, densities).front() == scores.retained[static_cast<std::size_t>(order)]);
            EXPECT_ERROR(retained_of(kept, std::array<double, 1>{0.0}), "density");
        }
    }
}
