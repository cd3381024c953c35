#include "paro/profile_plan.h"

#include <algorithm>
#include <cmath>

#include "paro/error.h"
#include "paro/spare.h"
#include "paro/thread_pool.h"

namespace paro {

namespace {

AxisOrder best_order(const std::array<double, 6>& retained) {
    const auto best = std::max_element(retained.begin(), retained.end());
    return kAxisOrders[static_cast<std::size_t>(best - retained.begin())];
}

HeadGroup build_group(const OffsetKernel& kernel, const OrderMap& map) {
    HeadGroup group;
    group.kernel = coarse(kernel.bins, quantise(kernel));
    const std::vector<double> mass = retained_of(map, kMassDensities);
    // Four digits are what an estimate holds; rounding may carry the share past 1, which the schema refuses.
    for (std::size_t i = 0; i < mass.size(); ++i) group.mass[i] = std::clamp(std::round(mass[i] * 1e4) / 1e4, 0.0, 1.0);
    return group;
}

// The heads of the layer asked for, once all of the request holds.
const std::vector<ProfileHead>& checked(const Profile& profile, const LayerRequest& request, const KnownBlocks& known) {
    require(request.layer < profile.layers.size(), "layer",
            "must be below " + std::to_string(profile.layers.size()) + ", the profile's layers", request.layer);
    require(request.group < profile.timestep_groups.size(), "group",
            "must be below " + std::to_string(profile.timestep_groups.size()) + ", the profile's timestep groups",
            request.group);
    validate(request.layout);
    const auto& heads = profile.layers[request.layer].heads;
    validate(known, heads.size(), request.layout.grid, request.block_q, request.block_kv);
    return heads;
}

// work(head, place among those asked for) for the heads of a request, in parallel.
template <typename Work>
void for_heads(const LayerRequest& request, std::size_t every, std::size_t asked, Work work) {
    for (const std::size_t head : request.heads) {
        require(head < every, "heads", "must hold numbers below " + std::to_string(every) + ", the layer's heads",
                head);
    }
    parallel_for(static_cast<std::int64_t>(asked), request.threads, [&](std::int64_t index, int) {
        const auto place = static_cast<std::size_t>(index);
        work(request.heads.empty() ? place : request.heads[place], place);
    });
}

}  // namespace

BuiltHead build_head(std::span<const OffsetKernel> groups, const Grid& grid, double density,
                     std::optional<AxisOrder> fixed) {
    require(!groups.empty(), "groups", "must hold at least one kernel", groups.size());
    BuiltHead built;
    // Kept until the order is known.
    static Spares<std::vector<std::array<OrderMap, 6>>> spares;
    Borrowed borrowed(spares);
    std::vector<std::array<OrderMap, 6>>& maps = *borrowed;
    maps.resize(std::max(maps.size(), groups.size()));
    for (std::size_t group = 0; group < groups.size(); ++group) {
        const OffsetKernel& kernel = groups[group];
        require(kernel.bins == groups.front().bins, "groups", "must share their bins", "kernels of different bins");
        const OrderScores scores = score_orders(kernel, grid, kMassTile, kMassTile, density, &maps[group]);
        for (std::size_t i = 0; i < scores.retained.size(); ++i) {
            built.retained[i] += scores.retained[i] / static_cast<double>(groups.size());
        }
    }
    built.head.order = fixed.value_or(best_order(built.retained));
    built.head.locked = fixed.has_value();
    const auto chosen = static_cast<std::size_t>(same_flattened(grid, built.head.order));
    for (std::size_t group = 0; group < groups.size(); ++group) {
        built.head.groups.push_back(build_group(groups[group], maps[group][chosen]));
    }
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

void head_importance(const Bins& bins, const ProfileHead& head, std::size_t group, const Grid& grid,
                     std::int32_t block_q, std::int32_t block_kv, const KnownBlocks& known, std::size_t place,
                     BlockMap& map) {
    require(group < head.groups.size(), "group",
            "must be below " + std::to_string(head.groups.size()) + ", the head's timestep groups", group);
    importance(dequantise(bins, head.groups[group].kernel), grid, head.order, block_q, block_kv, map);
    apply_known(known, place, grid, map);
}

HeadPlan plan_head(const Bins& bins, const ProfileHead& head, std::size_t group, const TokenLayout& layout,
                   std::int32_t block_q, std::int32_t block_kv, double density, const KnownBlocks& known,
                   std::size_t place) {
    require(group < head.groups.size(), "group",
            "must be below " + std::to_string(head.groups.size()) + ", the head's timestep groups", group);
    const double own = head.density.value_or(density);
    if (own == 1.0) {
        // Every block is in, whatever the kernel says.
        HeadPlan full = dense_head(layout, block_q, block_kv);
        full.order = head.order;
        return full;
    }
    static Spares<BlockMap> spares;
    Borrowed map(spares);
    head_importance(bins, head, group, layout.grid, block_q, block_kv, known, place, *map);
    return plan_head(*map, own);
}

std::vector<HeadPlan> plan_heads(const Profile& profile, const LayerRequest& request, const KnownBlocks& known) {
    const auto& heads = checked(profile, request, known);
    std::vector<HeadPlan> plans(request.heads.empty() ? heads.size() : request.heads.size());
    for_heads(request, heads.size(), plans.size(), [&](std::size_t head, std::size_t place) {
        plans[place] = plan_head(profile.bins, heads[head], request.group, request.layout, request.block_q,
                                 request.block_kv, request.density, known, head);
    });
    return plans;
}

Plan plan_layer(const Profile& profile, const LayerRequest& request, const KnownBlocks& known) {
    return make_plan(request.layout, request.block_q, request.block_kv, plan_heads(profile, request, known));
}

std::vector<BlockMap> layer_importance(const Profile& profile, const LayerRequest& request, const KnownBlocks& known) {
    const auto& heads = checked(profile, request, known);
    std::vector<BlockMap> maps(request.heads.empty() ? heads.size() : request.heads.size());
    for_heads(request, heads.size(), maps.size(), [&](std::size_t head, std::size_t place) {
        head_importance(profile.bins, heads[head], request.group, request.layout.grid, request.block_q,
                        request.block_kv, known, head, maps[place]);
    });
    return maps;
}

}  // namespace paro
