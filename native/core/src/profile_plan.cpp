#include "paro/profile_plan.h"

#include <algorithm>
#include <cmath>

#include "paro/error.h"
#include "paro/thread_pool.h"

namespace paro {

namespace {

AxisOrder best_order(const std::array<double, 6>& retained) {
    const auto best = std::max_element(retained.begin(), retained.end());
    return kAxisOrders[static_cast<std::size_t>(best - retained.begin())];
}

HeadGroup build_group(const OffsetKernel& kernel, const Grid& grid, AxisOrder order) {
    HeadGroup group;
    group.kernel = coarse(kernel.bins, quantise(kernel));
    const std::vector<double> mass = retained_of_order(kernel, grid, order, kMassTile, kMassTile, kMassDensities);
    // Four digits are what an estimate holds; rounding may carry the share past 1, which the schema refuses.
    for (std::size_t i = 0; i < mass.size(); ++i) group.mass[i] = std::clamp(std::round(mass[i] * 1e4) / 1e4, 0.0, 1.0);
    return group;
}

// What the samples saw in place of what the kernel says, where they saw enough.
void blend(const SeenMass& seen, std::int64_t grid_size, BlockMap& map) {
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const std::int64_t queries = std::min<std::int64_t>(map.block_q, grid_size - row * map.block_q);
        const float known = seen.prior / static_cast<float>(queries);
        const float whole = 1.0f / (seen.counts[static_cast<std::size_t>(row)] + seen.prior);
        for (std::int64_t i = row * map.cols; i < (row + 1) * map.cols; ++i) {
            const auto at = static_cast<std::size_t>(i);
            map.value[at] = (seen.sums[at] + map.value[at] * known) * whole;
        }
    }
}

}  // namespace

BuiltHead build_head(std::span<const OffsetKernel> groups, const Grid& grid, double density,
                     std::optional<AxisOrder> fixed) {
    require(!groups.empty(), "groups", "must hold at least one kernel", groups.size());
    BuiltHead built;
    for (const OffsetKernel& kernel : groups) {
        require(kernel.bins == groups.front().bins, "groups", "must share their bins", "kernels of different bins");
        const OrderScores scores = score_orders(kernel, grid, kMassTile, kMassTile, density);
        for (std::size_t i = 0; i < scores.retained.size(); ++i) {
            built.retained[i] += scores.retained[i] / static_cast<double>(groups.size());
        }
    }
    built.head.order = fixed.value_or(best_order(built.retained));
    built.head.locked = fixed.has_value();
    for (const OffsetKernel& kernel : groups) built.head.groups.push_back(build_group(kernel, grid, built.head.order));
    return built;
}

std::vector<BuiltHead> build_heads(std::span<const std::vector<OffsetKernel>> heads, const Grid& grid, double density,
                                   std::span<const std::optional<AxisOrder>> fixed, int threads) {
    require(fixed.empty() || fixed.size() == heads.size(), "fixed", "must be empty or have one entry per head",
            fixed.size());
    std::vector<BuiltHead> built(heads.size());
    parallel_for(static_cast<std::int64_t>(heads.size()), threads, [&](std::int64_t index, int) {
        const auto head = static_cast<std::size_t>(index);
        built[head] = build_head(heads[head], grid, density, fixed.empty() ? std::nullopt : fixed[head]);
    });
    return built;
}

std::vector<HeadGroup> renew_groups(const Bins& bins, std::span<const ProfileHead> heads, std::size_t group,
                                    std::span<const float> kernels, std::span<const float> rows, float prior,
                                    int threads) {
    require(rows.size() == heads.size(), "rows", "must be one a head", rows.size());
    require(prior >= 0.0f, "prior", "must not be negative", prior);
    require(heads.empty() || kernels.size() % heads.size() == 0, "kernels", "must be heads x bins", kernels.size());
    std::vector<HeadGroup> renewed(heads.size());
    parallel_for(static_cast<std::int64_t>(heads.size()), threads, [&](std::int64_t index, int) {
        const auto head = static_cast<std::size_t>(index);
        require(group < heads[head].groups.size(), "group", "must be an index into the head's groups", group);
        renewed[head] = heads[head].groups[group];
        if (rows[head] <= 0.0f) return;
        OffsetKernel kernel = dequantise(bins, renewed[head].kernel);
        const std::size_t size = kernels.size() / heads.size();
        require(kernel.value.size() == size, "kernels", "must have the profile's bins", size);
        const float weight = prior / (prior + rows[head]);
        for (std::size_t i = 0; i < size; ++i) {
            const float fresh = kernels[head * size + i];
            float& value = kernel.value[i];
            value = value <= 0.0f ? fresh : fresh <= 0.0f ? value : value * weight + fresh * (1.0f - weight);
        }
        renewed[head].kernel = quantise(kernel);
    });
    return renewed;
}

HeadPlan plan_head(const Bins& bins, const ProfileHead& head, std::size_t group, const TokenLayout& layout,
                   std::int32_t block_q, std::int32_t block_kv, double density, const SeenMass& seen) {
    require(group < head.groups.size(), "group", "must be an index into the head's groups", group);
    const double own = head.density.value_or(density);
    if (own == 1.0) {
        // Every block is in, whatever the kernel says.
        HeadPlan full = dense_head(layout, block_q, block_kv);
        full.order = head.order;
        return full;
    }
    const OffsetKernel kernel = dequantise(bins, head.groups[group].kernel);
    thread_local BlockMap map;
    importance(kernel, layout.grid, head.order, block_q, block_kv, map);
    if (!seen.empty()) blend(seen, layout.grid.size(), map);
    return plan_head(map, own);
}

Plan plan_layer(const Profile& profile, std::size_t layer, std::size_t group, const TokenLayout& layout,
                std::int32_t block_q, std::int32_t block_kv, double density, int threads, const SeenMass& seen) {
    require(layer < profile.layers.size(), "layer", "must be an index into the profile's layers", layer);
    require(group < profile.timestep_groups.size(), "group", "must be an index into the timestep groups", group);
    validate(layout);
    const auto& heads = profile.layers[layer].heads;
    const BlockMap shape = map_shape(layout.grid, AxisOrder::FHW, block_q, block_kv);
    const auto rows = static_cast<std::size_t>(shape.rows), cells = rows * static_cast<std::size_t>(shape.cols);
    if (!seen.empty()) {
        require(seen.counts.size() == heads.size() * rows, "seen.counts", "must be heads x rows", seen.counts.size());
        require(seen.sums.size() == heads.size() * cells, "seen.sums", "must be heads x rows x cols", seen.sums.size());
        require(seen.prior > 0.0f, "seen.prior", "must be above 0", seen.prior);
    }
    std::vector<HeadPlan> plans(heads.size());
    parallel_for(static_cast<std::int64_t>(heads.size()), threads, [&](std::int64_t index, int) {
        const auto head = static_cast<std::size_t>(index);
        SeenMass own;
        if (!seen.empty()) {
            own = {seen.sums.subspan(head * cells, cells), seen.counts.subspan(head * rows, rows), seen.prior};
        }
        plans[head] = plan_head(profile.bins, heads[head], group, layout, block_q, block_kv, density, own);
    });
    return make_plan(layout, block_q, block_kv, std::move(plans));
}

}  // namespace paro
