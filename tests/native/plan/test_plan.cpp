#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "expect_error.h"
#include "paro/plan.h"

using namespace paro;

namespace {

const TokenLayout kLayout{5, {3, 5, 7}, 40};  // at 16: 1 + 7 + 3 blocks, at 32: 1 + 4 + 2

HeadPlan random_head(std::int64_t rows, std::int64_t cols, unsigned seed) {
    std::mt19937 random(seed);
    HeadPlan head{AxisOrder::WHF, BlockMask(rows, cols), 0.4, 0.9};
    for (std::int64_t i = 0; i < rows * cols; ++i) head.mask.set(i / cols, i % cols, random() % 5 < 2);
    return head;
}

Plan odd_plan() {
    return make_plan(kLayout, 16, 32, {random_head(7, 4, 1), random_head(7, 4, 2), random_head(7, 4, 3)});
}

}  // namespace

TEST_CASE("plan: densities count as the kernel computes", "[plan]") {
    const Plan plan = odd_plan();
    std::int64_t grid = 0, total = 0;
    for (std::int32_t head = 0; head < 3; ++head) {
        for (std::int32_t tile = 0; tile < 11; ++tile) {
            const bool in_grid = tile >= 1 && tile < 8;
            const std::int64_t blocks = in_grid ? 3 + plan.heads[head].mask.row_count(tile - 1) : 7;
            REQUIRE(computed_blocks(plan, {head, tile}) == blocks);
            total += blocks;
            if (in_grid) grid += blocks - 3;
        }
    }
    CHECK(plan.density() == Catch::Approx(static_cast<double>(grid) / (3 * 7 * 4)));
    CHECK(plan.density_total() == Catch::Approx(static_cast<double>(total) / (3 * 11 * 7)));
    CHECK(plan.retained() == Catch::Approx(0.9));
    EXPECT_ERROR(computed_blocks(plan, {3, 0}), "tile.head");
    EXPECT_ERROR(computed_blocks(plan, {0, 11}), "tile.index");
    EXPECT_ERROR(computed_blocks(plan, {0, -1}), "tile.index");
}

TEST_CASE("plan: the schedule holds every tile once, longest first, ties by head and tile", "[plan]") {
    const Plan plan = odd_plan();
    REQUIRE(plan.schedule.size() == 33);
    for (std::size_t i = 1; i < plan.schedule.size(); ++i) {
        const Tile &a = plan.schedule[i - 1], &b = plan.schedule[i];
        const std::int64_t cost_a = computed_blocks(plan, a), cost_b = computed_blocks(plan, b);
        REQUIRE(cost_a >= cost_b);
        if (cost_a == cost_b) REQUIRE(std::pair(a.head, a.index) < std::pair(b.head, b.index));
    }
    std::set<std::pair<std::int32_t, std::int32_t>> tiles;
    for (const Tile& tile : plan.schedule) tiles.insert({tile.head, tile.index});
    CHECK(tiles.size() == 33);
    CHECK(odd_plan().schedule == plan.schedule);
}

TEST_CASE("plan: assign spreads the schedule evenly and completely", "[plan]") {
    const Plan plan = odd_plan();
    std::int64_t all = 0;
    for (const Tile& tile : plan.schedule) all += computed_blocks(plan, tile);
    for (const std::int32_t workers : {1, 2, 5, 33, 40}) {
        const auto lists = assign(plan, workers);
        REQUIRE(static_cast<std::int32_t>(lists.size()) == workers);
        std::vector<std::int32_t> positions;
        std::int64_t longest = 0;
        for (const auto& list : lists) {
            REQUIRE(std::is_sorted(list.begin(), list.end()));
            positions.insert(positions.end(), list.begin(), list.end());
            std::int64_t load = 0;
            for (const std::int32_t position : list) load += computed_blocks(plan, plan.schedule[position]);
            longest = std::max(longest, load);
        }
        std::sort(positions.begin(), positions.end());
        REQUIRE(positions.size() == 33);
        for (std::int32_t i = 0; i < 33; ++i) REQUIRE(positions[i] == i);
        // Graham's bound for LPT: 4/3 of the best, itself at least the mean and the longest tile.
        const double best = std::max(static_cast<double>(all) / workers, 7.0);
        CHECK(static_cast<double>(longest) <= 4.0 / 3.0 * best + 1.0);
    }
    EXPECT_ERROR(assign(plan, 0), "workers");
    EXPECT_ERROR(assign(plan, -3), "workers");
}

TEST_CASE("plan: heads made from maps and dense heads", "[plan]") {
    const TokenLayout layout{0, {3, 5, 7}, 0};
    BlockMap map = empty_map(layout.grid, AxisOrder::HWF, 16, 32);
    std::iota(map.value.begin(), map.value.end(), 1.0f);
    const HeadPlan head = plan_head(map, 0.5);
    CHECK(head.order == AxisOrder::HWF);
    CHECK(head.density == 0.5);
    // Half of 1..28 is 15..28; the three first rows get their last block each.
    CHECK(head.mask.count() == 14 + 3);
    CHECK(head.retained == Catch::Approx((301.0 + 4 + 8 + 12) / 406));

    const Plan dense = make_plan(layout, 16, 32, {dense_head(layout, 16, 32)});
    CHECK(dense.density() == 1.0);
    CHECK(dense.density_total() == 1.0);
    CHECK(dense.heads[0].order == AxisOrder::FHW);
}

TEST_CASE("plan: bad plans name the head and the sizes", "[plan]") {
    const auto plan_with = [](HeadPlan second) { return make_plan(kLayout, 16, 32, {random_head(7, 4, 1), second}); };
    EXPECT_ERROR(plan_with(random_head(7, 7, 1)), "heads[1].mask must have 7 x 4 blocks (got 7 x 7 blocks)");
    EXPECT_ERROR(plan_with(random_head(4, 4, 1)), "heads[1].mask must have 7 x 4 blocks (got 4 x 4 blocks)");
    HeadPlan head = random_head(7, 4, 1);
    head.density = 0.0;
    EXPECT_ERROR(plan_with(head), "heads[1].density");
    head = random_head(7, 4, 1);
    head.retained = std::numeric_limits<double>::quiet_NaN();
    EXPECT_ERROR(plan_with(head), "heads[1].retained");
    head = random_head(7, 4, 1);
    head.order = static_cast<AxisOrder>(9);
    EXPECT_ERROR(plan_with(head), "heads[1].order");
    EXPECT_ERROR(make_plan(kLayout, 16, 32, {}), "heads");
    EXPECT_ERROR(make_plan(kLayout, 0, 32, {random_head(7, 4, 1)}), "block_q");
    EXPECT_ERROR(make_plan(kLayout, 16, 5000, {random_head(7, 4, 1)}), "block_kv");
    EXPECT_ERROR(make_plan(TokenLayout{-1, {3, 5, 7}, 0}, 16, 32, {random_head(7, 4, 1)}), "layout.prefix");
}
