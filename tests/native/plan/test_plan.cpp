#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "expect_error.h"
#include "paro/plan.h"
#include "paro/plan_words.h"

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

bool in_grid(std::int32_t tile) { return tile >= 1 && tile < 8; }

// Key blocks of a tile: three outside of the grid always, all seven for queries outside of it.
std::int64_t computed_blocks(const Plan& plan, const Tile& tile) {
    return in_grid(tile.index) ? 3 + plan.heads[static_cast<std::size_t>(tile.head)].mask.row_count(tile.index - 1) : 7;
}

}  // namespace

TEST_CASE("plan: densities count as the kernel computes", "[plan]") {
    const Plan plan = odd_plan();
    std::int64_t grid = 0, total = 0;
    for (std::int32_t head = 0; head < 3; ++head) {
        for (std::int32_t tile = 0; tile < 11; ++tile) {
            const std::int64_t blocks = computed_blocks(plan, {head, tile});
            total += blocks;
            if (in_grid(tile)) grid += blocks - 3;
        }
    }
    CHECK(plan.density == Catch::Approx(static_cast<double>(grid) / (3 * 7 * 4)));
    CHECK(plan.density_total == Catch::Approx(static_cast<double>(total) / (3 * 11 * 7)));
    CHECK(plan.retained == Catch::Approx(0.9));
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

TEST_CASE("plan: words hold orders, the schedule of the grid and masks", "[plan]") {
    Plan plan = odd_plan();
    plan.heads[1].order = AxisOrder::HFW;
    const PlanWords layout = plan_layout(plan);
    CHECK(layout.heads == 3);
    CHECK(layout.rows == 7);
    CHECK(layout.cols == 4);
    CHECK(PlanWords{2, 5, 33}.mask_words() == 2);
    CHECK(PlanWords{2, 5, 33}.count() == 2 + 2 * 5 + 2 * 5 * 2);
    const std::vector<std::int32_t> words = plan_words(plan);
    REQUIRE(static_cast<std::int64_t>(words.size()) == layout.count());
    for (std::int32_t head = 0; head < 3; ++head) {
        const HeadPlan& own = plan.heads[static_cast<std::size_t>(head)];
        CHECK(words[static_cast<std::size_t>(layout.orders() + head)] == static_cast<std::int32_t>(own.order));
        std::vector<std::int32_t> scheduled;
        for (const Tile& tile : plan.schedule) {
            if (tile.head == head && in_grid(tile.index)) scheduled.push_back(tile.index - 1);
        }
        REQUIRE(scheduled.size() == 7);
        for (std::int64_t row = 0; row < 7; ++row) {
            const std::int64_t at = head * 7 + row;
            CHECK(words[static_cast<std::size_t>(layout.schedule() + at)] == scheduled[static_cast<std::size_t>(row)]);
            CHECK(static_cast<std::uint32_t>(words[static_cast<std::size_t>(layout.masks() + at)]) ==
                  *own.mask.row(row));
        }
    }
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
    CHECK(dense.density == 1.0);
    CHECK(dense.density_total == 1.0);
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
