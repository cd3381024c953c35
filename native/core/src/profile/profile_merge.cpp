#include "paro/profile_merge.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <utility>

#include "mass/kernel_blend.h"
#include "paro/error.h"
#include "paro/profile_plan.h"
#include "paro/thread_pool.h"
#include "profile/profile_text.h"

namespace paro {

namespace {

using detail::text_of;

// A layer of the merged profile: what each one holds of it, null where it does not.
struct LayerPair {
    const ProfileLayer *old = nullptr, *fresh = nullptr;

    const ProfileLayer& any() const { return old != nullptr ? *old : *fresh; }
};

// The layers of both, as they stand in old; one that fresh alone holds follows the layer that it follows there, and the
// first ones come before the first that both hold, or last.
std::vector<LayerPair> layers_of_both(const Profile& old, const Profile& fresh) {
    std::vector<LayerPair> pairs;
    for (const ProfileLayer& layer : old.layers) pairs.push_back({&layer, nullptr});
    const auto place = [&](const ProfileLayer& layer) {
        return std::find_if(pairs.begin(), pairs.end(), [&](auto& pair) { return pair.any().id == layer.id; });
    };
    auto next = static_cast<std::ptrdiff_t>(pairs.size());
    for (auto layer = fresh.layers.rbegin(); layer != fresh.layers.rend(); ++layer) {
        if (const auto found = place(*layer); found != pairs.end()) next = found - pairs.begin();
    }
    for (const ProfileLayer& layer : fresh.layers) {
        auto found = place(layer);
        if (found == pairs.end()) found = pairs.insert(pairs.begin() + next, LayerPair{});
        found->fresh = &layer;
        next = found - pairs.begin() + 1;
    }
    return pairs;
}

// The group of a head that stands for number `group`: a profile of one group holds for all sigmas.
const HeadGroup& group_of(const ProfileHead& head, std::size_t group) {
    return head.groups[std::min(group, head.groups.size() - 1)];
}

std::int32_t reach(const AxisBins& bins) { return std::max(std::abs(bins.edges.front()), std::abs(bins.edges.back())); }

AxisBins better(const AxisBins& a, const AxisBins& b) {
    return std::pair(reach(b), b.edges.size()) > std::pair(reach(a), a.edges.size()) ? b : a;
}

Bins common_bins(const Bins& a, const Bins& b) {
    Bins both{better(a.f, b.f), better(a.h, b.h), better(a.w, b.w)};
    // Only where axes come from different files can they be too many together: then one of the files' own will do.
    if (both.size() <= std::int64_t{1} << 22) return both;
    return a.size() >= b.size() ? a : b;
}

ProfileCalibration merged_calibration(const ProfileCalibration& old, const ProfileCalibration& fresh) {
    ProfileCalibration result = fresh;
    const std::int64_t prompts = std::int64_t{old.prompts} + fresh.prompts;
    result.prompts =
        static_cast<std::int32_t>(std::min<std::int64_t>(prompts, std::numeric_limits<std::int32_t>::max()));
    result.queries = std::max(old.queries, fresh.queries);
    result.grids = old.grids;
    for (const Grid& grid : fresh.grids) {
        if (std::find(result.grids.begin(), result.grids.end(), grid) == result.grids.end())
            result.grids.push_back(grid);
    }
    return result;
}

// One head of a merged profile.
class HeadMerge {
   public:
    HeadMerge(const Profile& old, const Profile& fresh, const Profile& merged, double density)
        : old_(old),
          fresh_(fresh),
          merged_(merged),
          density_(density),
          of_old_(old.bins, merged.bins),
          of_fresh_(fresh.bins, merged.bins) {
        const double prompts = static_cast<double>(old.calibration.prompts) + fresh.calibration.prompts;
        weight_ = prompts > 0.0 ? old.calibration.prompts / prompts : 0.5;
    }

    ProfileHead operator()(const LayerPair& pair, std::size_t place) const {
        const ProfileHead& own = pair.any().heads[place];
        const bool alone = pair.old == nullptr || pair.fresh == nullptr;
        const std::size_t groups = merged_.timestep_groups.size();
        const Bins& bins = pair.old != nullptr ? old_.bins : fresh_.bins;
        if (alone && bins == merged_.bins && own.groups.size() == groups) return own;
        std::vector<OffsetKernel> kernels;
        for (std::size_t group = 0; group < groups; ++group) {
            kernels.push_back(pair.old != nullptr ? old_kernel(pair, place, group) : fresh_kernel(pair, place, group));
            if (!alone) blend(kernels.back(), fresh_kernel(pair, place, group), weight_);
        }
        const bool keeps_order = own.locked || alone;
        ProfileHead built = build_head(kernels, fresh_.calibration.grids.front(), density_,
                                       keeps_order ? std::optional(own.order) : std::nullopt)
                                .head;
        built.density = own.density;
        built.locked = own.locked;
        return built;
    }

   private:
    OffsetKernel old_kernel(const LayerPair& pair, std::size_t place, std::size_t group) const {
        return of_old_(dequantise(old_.bins, group_of(pair.old->heads[place], group).kernel));
    }
    OffsetKernel fresh_kernel(const LayerPair& pair, std::size_t place, std::size_t group) const {
        return of_fresh_(dequantise(fresh_.bins, group_of(pair.fresh->heads[place], group).kernel));
    }

    const Profile &old_, &fresh_, &merged_;
    double density_, weight_;
    Rebin of_old_, of_fresh_;
};

// complete: of what both hold, old's counts alone.
Profile join(const Profile& old, const Profile& fresh, double density, bool complete, int threads) {
    validate(old);
    validate(fresh);
    require_mergeable(old, fresh);
    std::vector<LayerPair> pairs = layers_of_both(old, fresh);
    Profile merged = old;
    if (complete) {
        for (LayerPair& pair : pairs) pair.fresh = pair.old != nullptr ? nullptr : pair.fresh;
    } else {
        merged.calibration = merged_calibration(old.calibration, fresh.calibration);
    }
    merged.bins = common_bins(old.bins, fresh.bins);
    if (fresh.timestep_groups.size() > old.timestep_groups.size()) merged.timestep_groups = fresh.timestep_groups;
    merged.model.layers = static_cast<std::int32_t>(pairs.size());
    const auto heads = static_cast<std::size_t>(old.model.heads);
    merged.layers.clear();
    for (const LayerPair& pair : pairs) merged.layers.push_back({pair.any().id, std::vector<ProfileHead>(heads)});
    const HeadMerge merge(old, fresh, merged, density);
    parallel_for(static_cast<std::int64_t>(pairs.size() * heads), threads, [&](std::int64_t index, int) {
        const std::size_t layer = static_cast<std::size_t>(index) / heads,
                          place = static_cast<std::size_t>(index) % heads;
        merged.layers[layer].heads[place] = merge(pairs[layer], place);
    });
    validate(merged);
    return merged;
}

}  // namespace

void require_mergeable(const Profile& old, const Profile& fresh) {
    const auto same = [](const char* what, const auto& was, const auto& is) {
        if (was == is) return;
        fail("profile",
             std::string("must be of the same model as the one it goes into: ") + what + " must be " + text_of(was),
             text_of(is));
    };
    same("family", old.model.family, fresh.model.family);
    same("fingerprint", old.model.fingerprint, fresh.model.fingerprint);
    same("patches", old.model.patches, fresh.model.patches);
    same("heads", old.model.heads, fresh.model.heads);
    same("head_dim", old.model.head_dim, fresh.model.head_dim);
    require(!fresh.calibration.grids.empty(), "profile", "must name the grids it was calibrated on", "none");
    const Grid& grid = fresh.calibration.grids.front();
    if (match_grid(old, grid) == GridMatch::far) {
        fail("profile",
             "must be of a grid near those of the one it goes into, each side within 0.75 to 1.35 of " +
                 text_of(old.calibration.grids) + "; otherwise save it under a name of its own",
             text_of(grid));
    }
}

Profile merge_profiles(const Profile& old, const Profile& fresh, double density, int threads) {
    return join(old, fresh, density, false, threads);
}

Profile complete_profile(const Profile& profile, const Profile& other, int threads) {
    return join(profile, other, profile.defaults.density, true, threads);
}

}  // namespace paro
