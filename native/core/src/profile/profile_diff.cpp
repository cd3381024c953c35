#include "paro/profile_diff.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "paro/importance.h"
#include "paro/thread_pool.h"
#include "profile/profile_text.h"

namespace paro {

namespace {

using detail::text_of;

struct HeadView {
    const Profile* profile;
    const ProfileHead* head;

    double density() const { return head->density.value_or(profile->defaults.density); }
    BlockMap map(std::size_t group, const Grid& grid, AxisOrder order, std::int32_t block) const {
        return importance(dequantise(profile->bins, head->groups[group].kernel), grid, order, block, block);
    }
};

void compare(const HeadView& a, const HeadView& b, const Grid& grid, std::int32_t block, ProfileDiff::Head& out) {
    out.order_a = a.head->order;
    out.order_b = b.head->order;
    out.density_a = a.density();
    out.density_b = b.density();
    out.locked_a = a.head->locked;
    out.locked_b = b.head->locked;
    BlockMap of_a = a.map(out.group, grid, out.order_a, block), of_b = b.map(out.group, grid, out.order_b, block);
    const BlockMask mask_a = make_mask(of_a, out.density_a), mask_b = make_mask(of_b, out.density_b);
    out.a_by_a = retained_mass(of_a, mask_a);
    out.b_by_b = retained_mass(of_b, mask_b);
    if (out.order_a != out.order_b) {
        of_a = a.map(out.group, grid, out.order_b, block);
        of_b = b.map(out.group, grid, out.order_a, block);
    }
    out.a_by_b = retained_mass(of_a, mask_b);
    out.b_by_a = retained_mass(of_b, mask_a);
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
    add("defaults.density", a.defaults.density, b.defaults.density);
    add("defaults.precision", a.defaults.precision, b.defaults.precision);
    add("defaults.tail", a.defaults.tail, b.defaults.tail);
    return fields;
}

}  // namespace

std::size_t ProfileDiff::changed() const {
    return static_cast<std::size_t>(std::ranges::count_if(heads, &Head::changed));
}

ProfileDiff::Kept ProfileDiff::mean() const {
    Kept sum;
    const auto count = static_cast<double>(std::max<std::size_t>(heads.size(), 1));
    for (const Head& head : heads) {
        sum.a_by_a += head.a_by_a / count;
        sum.a_by_b += head.a_by_b / count;
        sum.b_by_b += head.b_by_b / count;
        sum.b_by_a += head.b_by_a / count;
    }
    return sum;
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
                diff.heads.emplace_back();
                diff.heads.back().layer = layer.id;
                diff.heads.back().head = head;
                diff.heads.back().group = group;
            }
        }
        of_b.erase(found);
    }
    for (const ProfileLayer& layer : b.layers) {
        if (of_b.contains(layer.id)) diff.only_b.push_back(layer.id);
    }
    parallel_for(static_cast<std::int64_t>(pairs.size()), threads, [&](std::int64_t index, int) {
        const auto i = static_cast<std::size_t>(index);
        compare(pairs[i].first, pairs[i].second, grid, block, diff.heads[i]);
    });
    return diff;
}

}  // namespace paro
