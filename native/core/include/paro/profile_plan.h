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

// The plan of one head of a profile. The head's own density comes before `density`. Throws Error if the head has no
// such group.
HeadPlan plan_head(const Bins& bins, const ProfileHead& head, std::size_t group, const TokenLayout& layout,
                   std::int32_t block_q, std::int32_t block_kv, double density);

// The plan of one layer. A head's own density comes before `density` (DESIGN: head, node, profile's default). Heads run
// in parallel over `threads`. Throws Error if the layer or group does not exist.
Plan plan_layer(const Profile& profile, std::size_t layer, std::size_t group, const TokenLayout& layout,
                std::int32_t block_q, std::int32_t block_kv, double density, int threads);

}  // namespace paro
