#include "paro/profile_plan.h"

#include <algorithm>

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
    group.kernel = quantise(kernel);
    const BlockMap map = importance(kernel, grid, order, kMassTile, kMassTile);
    for (std::size_t i = 0; i < kMassDensities.size(); ++i) {
        // Rounding may carry the share a hair past 1, which the schema refuses.
        group.mass[i] = std::clamp(retained_mass(map, make_mask(map, kMassDensities[i])), 0.0, 1.0);
    }
    return group;
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

Plan plan_layer(const Profile& profile, std::size_t layer, std::size_t group, const TokenLayout& layout,
                std::int32_t block_q, std::int32_t block_kv, double density, int threads) {
    require(layer < profile.layers.size(), "layer", "must be an index into the profile's layers", layer);
    require(group < profile.timestep_groups.size(), "group", "must be an index into the timestep groups", group);
    validate(layout);
    const auto& heads = profile.layers[layer].heads;
    std::vector<HeadPlan> plans(heads.size());
    parallel_for(static_cast<std::int64_t>(heads.size()), threads, [&](std::int64_t index, int) {
        const ProfileHead& head = heads[static_cast<std::size_t>(index)];
        const OffsetKernel kernel = dequantise(profile.bins, head.groups[group].kernel);
        const BlockMap map = importance(kernel, layout.grid, head.order, block_q, block_kv);
        plans[static_cast<std::size_t>(index)] = plan_head(map, head.density.value_or(density));
    });
    return make_plan(layout, block_q, block_kv, std::move(plans));
}

}  // namespace paro
