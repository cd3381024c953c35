// From observed kernels to a profile, and from a profile to plans.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "paro/order_select.h"
#include "paro/plan.h"
#include "paro/profile.h"

namespace paro {

// Tile at which a profile's `mass` is stated, whatever tile later runs.
inline constexpr std::int32_t kMassTile = 64;

struct BuiltHead {
    ProfileHead head;
    std::array<double, 6> retained{};  // by AxisOrder, mean over the groups, at the working density
};

// One head of a profile: the order of greatest retained mass at `density` (mean over the groups, since they share it),
// kernels quantised, mass at kMassDensities. fixed keeps that order instead. Throws Error if groups is empty or a
// kernel's bins differ from the first one's.
BuiltHead build_head(std::span<const OffsetKernel> groups, const Grid& grid, double density,
                     std::optional<AxisOrder> fixed = {});

// build_head for many heads, heads[head][group], in parallel over `threads`. fixed: empty, or one entry per head.
std::vector<BuiltHead> build_heads(std::span<const std::vector<OffsetKernel>> heads, const Grid& grid, double density,
                                   std::span<const std::optional<AxisOrder>> fixed, int threads);

// A layer's kernels of one timestep group, renewed: the mean of what the profile holds, counting as `prior` rows, and
// of kernels [heads, bins] that stand for rows [heads]; where one never observed an offset (0) the other counts alone.
// Heads of 0 rows stay. In parallel over `threads`. Throws Error on mismatching sizes or a negative prior.
std::vector<HeadGroup> renew_groups(const Bins& bins, std::span<const ProfileHead> heads, std::size_t group,
                                    std::span<const float> kernels, std::span<const float> rows, float prior,
                                    int threads);

// What a run's samples saw of a layer, in the heads' own orders: sums [heads, rows, cols] of softmax rows by block,
// counts [heads, rows] of queries; masks are then made of the mean mass a query, to which a head's kernel contributes
// as `prior` queries a tile do. Nothing seen: empty.
struct SeenMass {
    std::span<const float> sums, counts;
    float prior = 0.0f;

    bool empty() const { return counts.empty(); }
};

// The plan of one head of a profile. The head's own density comes before `density`. `seen` is of this head alone.
// Throws Error if the head has no such group.
HeadPlan plan_head(const Bins& bins, const ProfileHead& head, std::size_t group, const TokenLayout& layout,
                   std::int32_t block_q, std::int32_t block_kv, double density, const SeenMass& seen = {});

// The plan of one layer. A head's own density comes before `density` (DESIGN: head, node, profile's default). Heads run
// in parallel over `threads`. Throws Error if the layer or group does not exist, or if `seen` is of another size.
Plan plan_layer(const Profile& profile, std::size_t layer, std::size_t group, const TokenLayout& layout,
                std::int32_t block_q, std::int32_t block_kv, double density, int threads, const SeenMass& seen = {});

}  // namespace paro
