#include "paro/plan.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "paro/error.h"
#include "paro/limits.h"
#include "plan/block_choice.h"

namespace paro {

namespace {

std::string size_text(std::int64_t rows, std::int64_t cols) {
    return std::to_string(rows) + " x " + std::to_string(cols) + " blocks";
}

// Key blocks that every query tile computes, head by head.
std::vector<std::int64_t> tile_costs(const Plan& plan) {
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    const std::int64_t always = kv.prefix_blocks + kv.suffix_blocks;
    std::vector<std::int64_t> costs;
    costs.reserve(plan.heads.size() * static_cast<std::size_t>(q.blocks()));
    for (const HeadPlan& head : plan.heads) {
        for (std::int64_t tile = 0; tile < q.blocks(); ++tile) {
            costs.push_back(q.is_grid_block(tile) ? always + head.mask.row_count(tile - q.first_grid_block())
                                                  : kv.blocks());
        }
    }
    return costs;
}

// density, density_total and retained of a plan whose query tiles cost this much.
void set_shares(Plan& plan, const std::vector<std::int64_t>& costs) {
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    const auto heads = static_cast<std::int64_t>(plan.heads.size());
    const std::int64_t computed = std::accumulate(costs.begin(), costs.end(), std::int64_t{0});
    const std::int64_t all = heads * q.blocks() * kv.blocks(), grid = heads * q.grid_blocks * kv.grid_blocks;
    // What lies outside of the grid is always computed.
    plan.density = static_cast<double>(computed - (all - grid)) / static_cast<double>(grid);
    plan.density_total = static_cast<double>(computed) / static_cast<double>(all);
    double retained = 0.0;
    for (const HeadPlan& head : plan.heads) retained += head.retained;
    plan.retained = retained / static_cast<double>(heads);
}

void check_head(const HeadPlan& head, std::size_t index, const BlockLayout& q, const BlockLayout& kv) {
    const std::string name = "heads[" + std::to_string(index) + "]";
    const bool fits = head.mask.rows() == q.grid_blocks && head.mask.cols() == kv.grid_blocks;
    require(fits, name + ".mask", "must have " + size_text(q.grid_blocks, kv.grid_blocks),
            size_text(head.mask.rows(), head.mask.cols()));
    require(head.density > 0.0 && head.density <= 1.0, name + ".density", "must be above 0 and at most 1",
            head.density);
    // Rounding may carry a full mask's share a little past 1.
    require(head.retained >= 0.0 && head.retained <= 1.0 + 1e-6, name + ".retained", "must be 0 to 1", head.retained);
    require(static_cast<std::size_t>(head.order) < kAxisOrders.size(), name + ".order", "must be a number of 0 to 5",
            static_cast<int>(head.order));
}

}  // namespace

Plan make_plan(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv, std::vector<HeadPlan> heads) {
    validate(layout);
    require_block("block_q", block_q);
    require_block("block_kv", block_kv);
    require(!heads.empty(), "heads", "must hold at least one head", heads.size());
    Plan plan{.layout = layout, .block_q = block_q, .block_kv = block_kv, .heads = std::move(heads), .schedule = {}};
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    for (std::size_t i = 0; i < plan.heads.size(); ++i) check_head(plan.heads[i], i, q, kv);
    const std::int64_t tiles = static_cast<std::int64_t>(plan.heads.size()) * q.blocks();
    require(tiles <= std::numeric_limits<std::int32_t>::max(), "heads times query tiles", "must be at most 2^31 - 1",
            tiles);

    const std::vector<std::int64_t> costs = tile_costs(plan);
    std::vector<std::int32_t> positions(costs.size());
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
    // Stable: equal costs stay in the order of heads and tiles, which keeps a head's keys in cache.
    std::stable_sort(positions.begin(), positions.end(),
                     [&costs](std::int32_t a, std::int32_t b) { return costs[a] > costs[b]; });
    plan.schedule.reserve(positions.size());
    for (const std::int32_t position : positions) {
        plan.schedule.push_back(
            {static_cast<std::int32_t>(position / q.blocks()), static_cast<std::int32_t>(position % q.blocks())});
    }
    set_shares(plan, costs);
    return plan;
}

HeadPlan plan_head(const BlockMap& map, double density) {
    require(map.rows >= 1 && map.cols >= 1, "map", "must have blocks", size_text(map.rows, map.cols));
    require(static_cast<std::int64_t>(map.value.size()) == map.rows * map.cols, "map.value",
            "must have rows * cols = " + std::to_string(map.rows * map.cols) + " values", map.value.size());
    BlockChoice choice = choose_blocks(map.value, map.rows, map.cols, density);
    const double retained = choice.retained();
    return {map.order, std::move(choice.mask), density, retained};
}

HeadPlan dense_head(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv) {
    const BlockLayout q = block_layout(layout, block_q), kv = block_layout(layout, block_kv);
    return {AxisOrder::FHW, BlockMask::full(q.grid_blocks, kv.grid_blocks), 1.0, 1.0};
}

}  // namespace paro
