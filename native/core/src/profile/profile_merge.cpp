#include "paro/profile_merge.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <unordered_map>
#include <utility>

#include "files/text.h"
#include "mass/kernel_blend.h"
#include "paro/error.h"
#include "paro/thread_pool.h"

namespace paro {

namespace {

std::string text_of(const std::string& text) { return '"' + detail::clean(text) + '"'; }
std::string text_of(std::int32_t value) { return std::to_string(value); }
std::string text_of(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text + '0' : text;
}
std::string text_of(const Grid& grid) {
    return std::to_string(grid.f) + 'x' + std::to_string(grid.h) + 'x' + std::to_string(grid.w);
}
std::string text_of(const TimestepGroup& group) { return text_of(group.sigma_max) + " to " + text_of(group.sigma_min); }
template <typename Item>
std::string text_of(const std::vector<Item>& items) {
    std::string text;
    for (const Item& item : items) text += (text.empty() ? "" : ", ") + text_of(item);
    return text.empty() ? "none" : text;
}

void check_mergeable(const Profile& old, const Profile& fresh) {
    const auto same = [](const char* what, const auto& was, const auto& is) {
        if (!(was == is))
            fail("profile", std::string("must be of the same model: ") + what + " is " + text_of(is), text_of(was));
    };
    same("family", old.model.family, fresh.model.family);
    same("fingerprint", old.model.fingerprint, fresh.model.fingerprint);
    same("patches", old.model.patches, fresh.model.patches);
    same("heads", old.model.heads, fresh.model.heads);
    same("head_dim", old.model.head_dim, fresh.model.head_dim);
    require(!fresh.calibration.grids.empty(), "profile", "must state the grids it was calibrated on", "none");
    const Grid& grid = fresh.calibration.grids.front();
    if (match_grid(old, grid) == GridMatch::far) {
        fail("profile", "must be calibrated near the grid " + text_of(grid), text_of(old.calibration.grids));
    }
}

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
    for (int axis = 0; axis < 3; ++axis) both.keys[axis] = std::max(a.keys[axis], b.keys[axis]);
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

struct HeadView {
    const Profile* profile;
    const ProfileHead* head;

    double density() const { return head->density.value_or(profile->defaults.density); }
    BlockMap map(std::size_t group, const Grid& grid, AxisOrder order, std::int32_t block) const {
        return importance(dequantise(profile->bins, head->groups[group].kernel), grid, order, block, block);
    }
};

ProfileDiff::Head compare(const HeadView& a, const HeadView& b, std::size_t group, const Grid& grid,
                          std::int32_t block) {
    ProfileDiff::Head out;
    out.group = group;
    out.order_a = a.head->order;
    out.order_b = b.head->order;
    out.density_a = a.density();
    out.density_b = b.density();
    out.locked_a = a.head->locked;
    out.locked_b = b.head->locked;
    BlockMap of_a = a.map(group, grid, out.order_a, block), of_b = b.map(group, grid, out.order_b, block);
    const BlockMask mask_a = make_mask(of_a, out.density_a), mask_b = make_mask(of_b, out.density_b);
    out.a_by_a = retained_mass(of_a, mask_a);
    out.b_by_b = retained_mass(of_b, mask_b);
    if (out.order_a != out.order_b) {
        of_a = a.map(group, grid, out.order_b, block);
        of_b = b.map(group, grid, out.order_a, block);
    }
    out.a_by_b = retained_mass(of_a, mask_b);
    out.b_by_a = retained_mass(of_b, mask_a);
    return out;
}

std::vector<ProfileDiff::Field> field_differences(const Profile& a, const Profile& b) {
    std::vector<ProfileDiff::Field> fields;
    const auto add = [&](const char* name, const auto& x, const auto& y) {
        if (!(x == y)) fields.push_back({name, text_of(x), text_of(y)});
    };
    add("model.family", a.model.family, b.model.family);
    add("model.fingerprint", a.model.fingerprint, b.model.fingerprint);
    add("model.layers", a.model.layers, b.model.layers);
    add("model.heads", a.model.heads, b.model.heads);
    add("model.head_dim", a.model.head_dim, b.model.head_dim);
    add("model.patches", a.model.patches, b.model.patches);
    add("calibration.grids", a.calibration.grids, b.calibration.grids);
    add("calibration.steps", a.calibration.steps, b.calibration.steps);
    add("calibration.sampler", a.calibration.sampler, b.calibration.sampler);
    add("calibration.prompts", a.calibration.prompts, b.calibration.prompts);
    add("calibration.queries", a.calibration.queries, b.calibration.queries);
    add("calibration.date", a.calibration.date, b.calibration.date);
    add("calibration.version", a.calibration.version, b.calibration.version);
    add("timestep_groups", a.timestep_groups, b.timestep_groups);
    add("bins.F", a.bins.f.edges, b.bins.f.edges);
    add("bins.H", a.bins.h.edges, b.bins.h.edges);
    add("bins.W", a.bins.w.edges, b.bins.w.edges);
    add("bins.keys", std::vector<std::int32_t>(a.bins.keys.begin(), a.bins.keys.end()),
        std::vector<std::int32_t>(b.bins.keys.begin(), b.bins.keys.end()));
    add("defaults.density", a.defaults.density, b.defaults.density);
    add("defaults.precision", a.defaults.precision, b.defaults.precision);
    add("defaults.tail", std::string(a.defaults.tail ? "true" : "false"),
        std::string(b.defaults.tail ? "true" : "false"));
    return fields;
}

}  // namespace

Profile merge_profiles(const Profile& old, const Profile& fresh, double density, int threads) {
    validate(old);
    validate(fresh);
    check_mergeable(old, fresh);
    const double prompts = static_cast<double>(old.calibration.prompts) + fresh.calibration.prompts;
    const double weight = prompts > 0.0 ? old.calibration.prompts / prompts : 0.5;
    Profile merged = old;
    merged.bins = common_bins(old.bins, fresh.bins);
    merged.calibration = merged_calibration(old.calibration, fresh.calibration);
    if (fresh.timestep_groups.size() > old.timestep_groups.size()) merged.timestep_groups = fresh.timestep_groups;
    const Grid grid = fresh.calibration.grids.front();
    const Rebin of_old(old.bins, merged.bins), of_fresh(fresh.bins, merged.bins);
    const std::vector<LayerPair> pairs = layers_of_both(old, fresh);
    merged.model.layers = static_cast<std::int32_t>(pairs.size());
    merged.layers.assign(pairs.size(), {});
    for (std::size_t layer = 0; layer < pairs.size(); ++layer) {
        merged.layers[layer].id = pairs[layer].any().id;
        merged.layers[layer].heads.resize(pairs[layer].any().heads.size());
    }
    const auto heads = static_cast<std::int64_t>(old.model.heads);
    parallel_for(static_cast<std::int64_t>(pairs.size()) * heads, threads, [&](std::int64_t index, int) {
        const auto layer = static_cast<std::size_t>(index / heads), place = static_cast<std::size_t>(index % heads);
        const LayerPair& pair = pairs[layer];
        const ProfileHead& own = pair.any().heads[place];
        const bool alone = pair.old == nullptr || pair.fresh == nullptr;
        const Bins& bins = pair.old != nullptr ? old.bins : fresh.bins;
        const std::size_t groups = merged.timestep_groups.size();
        if (alone && bins == merged.bins && own.groups.size() == groups) {
            merged.layers[layer].heads[place] = own;
            return;
        }
        const auto kernel = [&](const Rebin& rebin, const Bins& from, const ProfileLayer& of, std::size_t group) {
            return rebin(dequantise(from, group_of(of.heads[place], group).kernel));
        };
        std::vector<OffsetKernel> kernels;
        for (std::size_t group = 0; group < groups; ++group) {
            kernels.push_back(kernel(pair.old != nullptr ? of_old : of_fresh, bins, pair.any(), group));
            if (!alone) blend(kernels.back(), kernel(of_fresh, fresh.bins, *pair.fresh, group), weight);
        }
        const bool chosen = own.locked || alone;
        ProfileHead built = build_head(kernels, grid, density, chosen ? std::optional(own.order) : std::nullopt).head;
        built.density = own.density;
        built.locked = own.locked;
        merged.layers[layer].heads[place] = std::move(built);
    });
    validate(merged);
    return merged;
}

ProfileDiff diff_profiles(const Profile& a, const Profile& b, std::int32_t block, int threads) {
    validate(a);
    validate(b);
    const Grid grid = a.calibration.grids.front();
    map_shape(grid, AxisOrder::FHW, block, block);
    ProfileDiff diff;
    diff.fields = field_differences(a, b);
    std::unordered_map<std::string_view, const ProfileLayer*> of_b;
    for (const ProfileLayer& layer : b.layers) of_b[layer.id] = &layer;
    const std::size_t groups = std::min(a.timestep_groups.size(), b.timestep_groups.size());
    std::vector<std::pair<HeadView, HeadView>> pairs;
    for (const ProfileLayer& layer : a.layers) {
        const auto found = of_b.find(layer.id);
        if (found == of_b.end()) {
            diff.only_a.push_back(layer.id);
            continue;
        }
        const std::size_t heads = std::min(layer.heads.size(), found->second->heads.size());
        for (std::size_t head = 0; head < heads; ++head) {
            for (std::size_t group = 0; group < groups; ++group) {
                pairs.emplace_back(HeadView{&a, &layer.heads[head]}, HeadView{&b, &found->second->heads[head]});
                ProfileDiff::Head entry;
                entry.layer = layer.id;
                entry.head = head;
                entry.group = group;
                diff.heads.push_back(std::move(entry));
            }
        }
        of_b.erase(found);
    }
    for (const ProfileLayer& layer : b.layers) {
        if (of_b.contains(layer.id)) diff.only_b.push_back(layer.id);
    }
    parallel_for(static_cast<std::int64_t>(pairs.size()), threads, [&](std::int64_t index, int) {
        const auto i = static_cast<std::size_t>(index);
        ProfileDiff::Head& entry = diff.heads[i];
        ProfileDiff::Head found = compare(pairs[i].first, pairs[i].second, entry.group, grid, block);
        found.layer = std::move(entry.layer);
        found.head = entry.head;
        entry = std::move(found);
    });
    return diff;
}

}  // namespace paro
