#include "paro/plan.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <string>
#include <utility>

#include "paro/error.h"
#include "plan/block_choice.h"

namespace paro {

namespace {

std::string size_text(std::int64_t rows, std::int64_t cols) {
    return std::to_string(rows) + " x " + std::to_string(cols) + " blocks";
}

// Cost of every query tile, head by head.
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

void check_head(const HeadPlan& head, std::size_t index, const BlockLayout& q, const BlockLayout& kv) {
    const std::string name = "heads[" + std::to_string(index) + "]";
    const bool fits = head.mask.rows() == q.grid_blocks && head.mask.cols() == kv.grid_blocks;
    require(fits, name + ".mask", "must have " + size_text(q.grid_blocks, kv.grid_blocks),
            size_text(head.mask.rows(), head.mask.cols()));
    require(head.density > 0.0 && head.density <= 1.0, name + ".density", "must be above 0 and at most 1",
            head.density);
    // Rounding may carry a full mask's share a little past 1.
    require(head.retained >= 0.0 && head.retained <= 1.0 + 1e-6, name + ".retained", "must be 0 to 1", head.retained);
    require(static_cast<std::size_t>(head.order) < kAxisOrders.size(), name + ".order", "must be one of the six",
            static_cast<int>(head.order));
}

}  // namespace

double Plan::density() const {
    std::int64_t computed = 0, all = 0;
    for (const HeadPlan& head : heads) {
        computed += head.mask.count();
        all += head.mask.rows() * head.mask.cols();
    }
    return all == 0 ? 0.0 : static_cast<double>(computed) / static_cast<double>(all);
}

double Plan::density_total() const {
    const std::int64_t per_tile = kv_blocks().blocks();
    std::int64_t computed = 0, all = 0;
    for (const std::int64_t cost : tile_costs(*this)) {
        computed += cost;
        all += per_tile;
    }
    return all == 0 ? 0.0 : static_cast<double>(computed) / static_cast<double>(all);
}

double Plan::retained() const {
    double sum = 0.0;
    for (const HeadPlan& head : heads) sum += head.retained;
    return heads.empty() ? 0.0 : sum / static_cast<double>(heads.size());
}

std::int64_t computed_blocks(const Plan& plan, const Tile& tile) {
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    require(tile.head >= 0 && tile.head < static_cast<std::int64_t>(plan.heads.size()), "tile.head",
            "must be a head of the plan", tile.head);
    require(tile.index >= 0 && tile.index < q.blocks(), "tile.index", "must be a query tile of the plan", tile.index);
    if (!q.is_grid_block(tile.index)) return kv.blocks();
    return kv.prefix_blocks + kv.suffix_blocks +
           plan.heads[tile.head].mask.row_count(tile.index - q.first_grid_block());
}

Plan make_plan(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv, std::vector<HeadPlan> heads) {
    validate(layout);
    require(block_q >= 1 && block_q <= 4096, "block_q", "must be 1 to 4096", block_q);
    require(block_kv >= 1 && block_kv <= 4096, "block_kv", "must be 1 to 4096", block_kv);
    require(!heads.empty(), "heads", "must hold at least one head", heads.size());
    Plan plan{layout, block_q, block_kv, std::move(heads), {}};
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    for (std::size_t i = 0; i < plan.heads.size(); ++i) check_head(plan.heads[i], i, q, kv);
    const std::int64_t tiles = static_cast<std::int64_t>(plan.heads.size()) * q.blocks();
    require(tiles <= std::numeric_limits<std::int32_t>::max(), "heads", "times query tiles must be at most 2^31 - 1",
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
    return plan;
}

HeadPlan plan_head(const BlockMap& map, double density) {
    require(map.rows >= 1 && map.cols >= 1 && static_cast<std::int64_t>(map.value.size()) == map.rows * map.cols, "map",
            "must have rows * cols values", map.value.size());
    BlockChoice choice = choose_blocks(map.value, map.rows, map.cols, density);
    const double retained = choice.retained();
    return {map.order, std::move(choice.mask), density, retained};
}

HeadPlan dense_head(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv) {
    const BlockLayout q = block_layout(layout, block_q), kv = block_layout(layout, block_kv);
    return {AxisOrder::FHW, BlockMask::full(q.grid_blocks, kv.grid_blocks), 1.0, 1.0};
}

std::vector<std::vector<std::int32_t>> assign(const Plan& plan, std::int32_t workers) {
    require(workers >= 1, "workers", "must be at least 1", workers);
    const std::vector<std::int64_t> costs = tile_costs(plan);
    const std::int64_t tiles_per_head = plan.q_blocks().blocks();
    using Load = std::pair<std::int64_t, std::int32_t>;  // blocks so far, worker: ties go to the lower worker
    std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
    for (std::int32_t worker = 0; worker < workers; ++worker) least.push({0, worker});

    std::vector<std::vector<std::int32_t>> result(static_cast<std::size_t>(workers));
    for (std::size_t i = 0; i < plan.schedule.size(); ++i) {
        auto [load, worker] = least.top();
        least.pop();
        const Tile& tile = plan.schedule[i];
        result[worker].push_back(static_cast<std::int32_t>(i));
        least.push({load + costs[tile.head * tiles_per_head + tile.index], worker});
    }
    return result;
}

}  // namespace paro
