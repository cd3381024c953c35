// From observed kernels to a profile, and from a profile to plans.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "paro/known_blocks.h"
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

// What the plan of a head is made from: the importance of its kernel, and of what else is `known` of its layer, where
// it is number `place`. Throws Error if the head has no such group. Expects known to be valid.
void head_importance(const Bins& bins, const ProfileHead& head, std::size_t group, const Grid& grid,
                     std::int32_t block_q, std::int32_t block_kv, const KnownBlocks& known, std::size_t place,
                     BlockMap& map);

// The plan of one head of a profile. The head's own density comes before `density`. known, place as above.
HeadPlan plan_head(const Bins& bins, const ProfileHead& head, std::size_t group, const TokenLayout& layout,
                   std::int32_t block_q, std::int32_t block_kv, double density, const KnownBlocks& known = {},
                   std::size_t place = 0);

// What plans to make of one layer of a profile. A head's own density comes before `density` (DESIGN: head, node,
// profile's default).
struct LayerRequest {
    std::size_t layer = 0, group = 0;
    TokenLayout layout;
    std::int32_t block_q = 64, block_kv = 64;
    double density = 0.3;
    int threads = 0;                      // heads run in parallel
    std::vector<std::size_t> heads = {};  // in this order; empty: all of them
};

// All three throw Error if layer, group or head does not exist, or if `known`, which is of all heads, is of other
// sizes.
std::vector<HeadPlan> plan_heads(const Profile& profile, const LayerRequest& request, const KnownBlocks& known = {});
Plan plan_layer(const Profile& profile, const LayerRequest& request, const KnownBlocks& known = {});
// What plan_layer makes its masks from, by head; density does not enter.
std::vector<BlockMap> layer_importance(const Profile& profile, const LayerRequest& request,
                                       const KnownBlocks& known = {});

}  // namespace paro
