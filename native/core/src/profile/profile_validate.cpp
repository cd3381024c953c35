// The rules of the schema on a value in memory.
#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "files/text.h"
#include "paro/error.h"
#include "profile/profile_rules.h"

namespace paro {
namespace detail {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

void check_text(const Place& place, std::string_view text, bool may_be_empty) {
    require_at(may_be_empty || !text.empty(), place, "must not be empty", "\"\"");
    // A character has four bytes at most: what is longer in any case is not walked through.
    require_at(text.size() <= 4 * kMaxTextLength, place, "must not be longer than 200 characters",
               std::to_string(text.size()) + " bytes");
    std::size_t characters = 0;
    for (std::size_t at = 0; at < text.size(); ++characters) {
        char32_t code = 0;
        const std::size_t length = decode_utf8(text, at, code);
        if (length == 0) fail(place.str(), "must be UTF-8", clean(text));
        if (!is_printable(code)) fail(place.str(), "must hold printable characters only", clean(text));
        at += length;
    }
    require_at(characters <= kMaxTextLength, place, "must not be longer than 200 characters", characters);
}

void check_count(const Place& place, std::int64_t value, std::int64_t least, std::int64_t most) {
    const auto rule = [&] { return "must be from " + std::to_string(least) + " to " + std::to_string(most); };
    if (value < least || value > most) fail(place.str(), rule(), value);
}

void check_share(const Place& place, double value, double least, std::string_view rule) {
    require_at(value >= least && value <= 1.0, place, rule, value);  // NaN fails both
}

void check_density(const Place& place, double value) { check_share(place, value, 0.05, "must be from 0.05 to 1"); }

// The rules of grids belong to their own module; only the place is added here.
void check_grid(const Place& place, const Grid& grid) {
    try {
        paro::validate(grid);
    } catch (const Error& error) {
        throw Error(place.str() + ": " + error.what());
    }
}

void check_model(const ProfileModel& model) {
    const Place place("model");
    check_text(place.key("family"), model.family, false);
    const auto is_hex = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); };
    const bool sha256 = model.fingerprint.size() == 64 && std::ranges::all_of(model.fingerprint, is_hex);
    require_at(sha256, place.key("fingerprint"), "must be 64 lower-case hex digits", clean(model.fingerprint));
    check_count(place.key("layers"), model.layers, 1, kMaxLayers);
    check_count(place.key("heads"), model.heads, 1, kMaxHeads);
    check_count(place.key("head_dim"), model.head_dim, 1, 65536);
    check_text(place.key("patches"), model.patches, true);
}

void check_calibration(const ProfileCalibration& calibration) {
    const Place place("calibration");
    const Place grids = place.key("grids");
    check_count(grids, static_cast<std::int64_t>(calibration.grids.size()), 1, kMaxGrids);
    for (std::size_t i = 0; i < calibration.grids.size(); ++i) check_grid(grids.at(i), calibration.grids[i]);
    constexpr std::int64_t kMost = INT32_MAX;
    check_count(place.key("steps"), calibration.steps, 0, kMost);
    check_count(place.key("prompts"), calibration.prompts, 0, kMost);
    check_count(place.key("queries"), calibration.queries, 0, kMost);
    check_text(place.key("sampler"), calibration.sampler, true);
    check_text(place.key("date"), calibration.date, true);
    check_text(place.key("version"), calibration.version, true);
}

void check_timestep_groups(const std::vector<TimestepGroup>& groups) {
    const Place place("timestep_groups");
    check_count(place, static_cast<std::int64_t>(groups.size()), 1, kMaxGroups);
    double above = kMaxSigma;
    for (std::size_t i = 0; i < groups.size(); ++i) {
        const Place group = place.at(i);
        const auto [high, low] = groups[i];
        require_at(high <= above, group.key("sigma_max"),
                   i == 0 ? "must be at most 1e9" : "must not exceed the sigma_min before", high);
        require_at(low >= 0.0 && low < high, group.key("sigma_min"), "must be at least 0 and below sigma_max", low);
        above = low;
    }
}

void check_defaults(const ProfileDefaults& defaults) {
    const Place place("defaults");
    check_density(place.key("density"), defaults.density);
    const std::string& precision = defaults.precision;
    require_at(precision == "int8" || precision == "int4" || precision == "bf16", place.key("precision"),
               "must be int8, int4 or bf16", clean(precision));
}

void check_head(const Place& place, const ProfileHead& head, std::size_t groups) {
    require_at(static_cast<std::size_t>(head.order) < kAxisOrders.size(), place.key("order"),
               "must be one of the six axis orders, 0 to 5", static_cast<int>(head.order));
    if (head.density) check_density(place.key("density"), *head.density);
    const Place list = place.key("groups");
    require_at(head.groups.size() == groups, list,
               "must hold as many groups as timestep_groups (" + std::to_string(groups) + ')', head.groups.size());
    for (std::size_t i = 0; i < groups; ++i) {
        const Place group = list.at(i);
        // A mean probability, with room for rounding. Larger ones would overflow when a block's importance is summed.
        const float peak = head.groups[i].kernel.peak;
        require_at(peak >= 0.0f && peak <= 1.01f, group.key("peak"), "must be a probability, from 0 to 1", peak);
        const Place mass = group.key("mass");
        constexpr std::array<std::string_view, 4> kKeys = {"0.1", "0.2", "0.3", "0.5"};
        for (std::size_t m = 0; m < kKeys.size(); ++m) {
            check_share(mass.key(kKeys[m]), head.groups[i].mass[m], 0.0, "must be from 0 to 1");
        }
    }
}

void check_layers(const Profile& profile) {
    const Place place("layers");
    const auto count = static_cast<std::size_t>(profile.model.layers),
               heads = static_cast<std::size_t>(profile.model.heads);
    require_at(profile.layers.size() == count, place,
               "must hold as many layers as model.layers says (" + std::to_string(count) + ')', profile.layers.size());
    std::unordered_set<std::string_view> ids;
    for (std::size_t l = 0; l < count; ++l) {
        const Place layer = place.at(l);
        const ProfileLayer& value = profile.layers[l];
        require_at(is_layer_id(value.id), layer.key("id"),
                   "must read block_type.block_index.occurrence, such as double.0.0", clean(value.id));
        require_at(ids.insert(value.id).second, layer.key("id"), "must not occur twice", clean(value.id));
        const Place list = layer.key("heads");
        require_at(value.heads.size() == heads, list,
                   "must hold as many heads as model.heads says (" + std::to_string(heads) + ')', value.heads.size());
        for (std::size_t h = 0; h < heads; ++h) {
            check_head(list.at(h), value.heads[h], profile.timestep_groups.size());
        }
    }
}

}  // namespace

bool is_layer_id(std::string_view id) {
    if (id.size() > kMaxTextLength) return false;
    const std::size_t first = id.find('.'), second = id.find('.', first == id.npos ? first : first + 1);
    if (second == id.npos) return false;
    const auto type = id.substr(0, first), index = id.substr(first + 1, second - first - 1),
               occurrence = id.substr(second + 1);
    return !type.empty() && !index.empty() && !occurrence.empty() && std::ranges::all_of(type, is_word) &&
           std::ranges::all_of(index, is_digit) && std::ranges::all_of(occurrence, is_digit);
}

void validate_outline(const Profile& profile) {
    check_model(profile.model);
    check_calibration(profile.calibration);
    check_timestep_groups(profile.timestep_groups);
    paro::validate(profile.bins);
    check_defaults(profile.defaults);
    check_layers(profile);
    const std::int64_t kernels = std::int64_t{profile.model.layers} * profile.model.heads *
                                 static_cast<std::int64_t>(profile.timestep_groups.size());
    require_at(kernels <= kMaxCodes / profile.bins.size(), Place("layers"),
               "must not hold more than " + std::to_string(kMaxCodes) + " codes in all kernels",
               std::to_string(kernels) + " kernels of " + std::to_string(profile.bins.size()));
}

}  // namespace detail

void validate(const Profile& profile) {
    using detail::Place;
    detail::validate_outline(profile);
    const auto bins = static_cast<std::size_t>(profile.bins.size());
    const Place layers("layers");
    for (std::size_t l = 0; l < profile.layers.size(); ++l) {
        const Place layer = layers.at(l);
        const Place heads = layer.key("heads");
        for (std::size_t h = 0; h < profile.layers[l].heads.size(); ++h) {
            const Place head = heads.at(h);
            const Place groups = head.key("groups");
            const std::vector<HeadGroup>& list = profile.layers[l].heads[h].groups;
            for (std::size_t g = 0; g < list.size(); ++g) {
                const Place group = groups.at(g);
                detail::require_at(list[g].kernel.code.size() == bins, group.key("kernel"),
                                   "must hold one code per bin (" + std::to_string(bins) + ')',
                                   list[g].kernel.code.size());
            }
        }
    }
}

}  // namespace paro
