// Profiles as JSON, read: the tables of the schema "paroattention/1" and the unpacking of kernels.
#include <limits>
#include <utility>

#include "files/base64.h"
#include "files/deflate.h"
#include "files/json_reader.h"
#include "profile/profile_rules.h"

namespace paro {
namespace detail {
namespace {

using Field = JsonField<Profile>;
using Shape = JsonShape<Profile>;

std::int32_t to_int32(const JsonValue& value) {
    if (value.integer < INT32_MIN || value.integer > INT32_MAX) throw JsonRefusal{"must be from -2^31 to 2^31 - 1"};
    return static_cast<std::int32_t>(value.integer);
}

ProfileHead& last_head(Profile& profile) { return profile.layers.back().heads.back(); }
HeadGroup& last_group(Profile& profile) { return last_head(profile).groups.back(); }

void check_schema(Profile&, JsonValue& value) {
    if (*value.text == kProfileSchema) return;
    throw JsonRefusal{"must be \"" + std::string(kProfileSchema) +
                      "\", the one schema that this version reads: make the profile anew with PARO Calibrate, or get "
                      "one of that schema"};
}

void set_order(Profile& profile, JsonValue& value) {
    for (const AxisOrder order : kAxisOrders) {
        if (to_string(order) != *value.text) continue;
        last_head(profile).order = order;
        return;
    }
    throw JsonRefusal{"must be one of FHW, FWH, HFW, HWF, WFH, WHF"};
}

// The code's vector holds the deflated bytes until the whole document is read: only then is their true size known.
void set_kernel(Profile& profile, JsonValue& value) {
    auto bytes = base64_decode(*value.text);
    if (!bytes) throw JsonRefusal{"must be standard base64 with padding"};
    last_group(profile).kernel.code = std::move(*bytes);
}

void set_peak(Profile& profile, JsonValue& value) {
    if (!(value.number >= 0.0 && value.number <= std::numeric_limits<float>::max())) {
        throw JsonRefusal{"must be a probability, from 0 to 1"};
    }
    last_group(profile).kernel.peak = static_cast<float>(value.number);
}

template <std::size_t kIndex>
void set_mass(Profile& profile, JsonValue& value) {
    last_group(profile).mass[kIndex] = value.number;
}

void set_side(Profile& profile, JsonValue& value) {
    Grid& grid = profile.calibration.grids.back();
    std::int32_t* const sides[] = {&grid.f, &grid.h, &grid.w};
    *sides[value.index] = to_int32(value);
}

template <auto kAxis>
void add_edge(Profile& profile, JsonValue& value) {
    (profile.bins.*kAxis).edges.push_back(to_int32(value));
}

template <auto kMember>
void set_model_count(Profile& profile, JsonValue& value) {
    profile.model.*kMember = to_int32(value);
}

template <auto kMember>
void set_model_text(Profile& profile, JsonValue& value) {
    profile.model.*kMember = std::move(*value.text);
}

template <auto kMember>
void set_calibration_count(Profile& profile, JsonValue& value) {
    profile.calibration.*kMember = to_int32(value);
}

template <auto kMember>
void set_calibration_text(Profile& profile, JsonValue& value) {
    profile.calibration.*kMember = std::move(*value.text);
}

constexpr Field kModelFields[] = {
    {"family", JsonKind::text, set_model_text<&ProfileModel::family>},
    {"fingerprint", JsonKind::text, set_model_text<&ProfileModel::fingerprint>},
    {"layers", JsonKind::integer, set_model_count<&ProfileModel::layers>},
    {"heads", JsonKind::integer, set_model_count<&ProfileModel::heads>},
    {"head_dim", JsonKind::integer, set_model_count<&ProfileModel::head_dim>},
    {"patches", JsonKind::text, set_model_text<&ProfileModel::patches>},
};
constexpr Shape kModel{kModelFields};

constexpr Field kSide[] = {{"", JsonKind::integer, set_side}};
constexpr Shape kGrid{kSide, 3, 3, [](Profile& p) { p.calibration.grids.emplace_back(); }};
constexpr Field kGridItem[] = {{"", JsonKind::array, nullptr, &kGrid}};
constexpr Shape kGrids{kGridItem, 1, kMaxGrids};

constexpr Field kCalibrationFields[] = {
    {"grids", JsonKind::array, nullptr, &kGrids},
    {"steps", JsonKind::integer, set_calibration_count<&ProfileCalibration::steps>},
    {"sampler", JsonKind::text, set_calibration_text<&ProfileCalibration::sampler>},
    {"prompts", JsonKind::integer, set_calibration_count<&ProfileCalibration::prompts>},
    {"queries", JsonKind::integer, set_calibration_count<&ProfileCalibration::queries>},
    {"date", JsonKind::text, set_calibration_text<&ProfileCalibration::date>},
    {"version", JsonKind::text, set_calibration_text<&ProfileCalibration::version>},
};
constexpr Shape kCalibration{kCalibrationFields};

constexpr Field kTimestepGroupFields[] = {
    {"sigma_max", JsonKind::number, [](Profile& p, JsonValue& v) { p.timestep_groups.back().sigma_max = v.number; }},
    {"sigma_min", JsonKind::number, [](Profile& p, JsonValue& v) { p.timestep_groups.back().sigma_min = v.number; }},
};
constexpr Shape kTimestepGroup{kTimestepGroupFields, 0, 0, [](Profile& p) { p.timestep_groups.emplace_back(); }};
constexpr Field kTimestepGroupItem[] = {{"", JsonKind::object, nullptr, &kTimestepGroup}};
constexpr Shape kTimestepGroups{kTimestepGroupItem, 1, kMaxGroups};

constexpr Field kEdgeF[] = {{"", JsonKind::integer, add_edge<&Bins::f>}};
constexpr Field kEdgeH[] = {{"", JsonKind::integer, add_edge<&Bins::h>}};
constexpr Field kEdgeW[] = {{"", JsonKind::integer, add_edge<&Bins::w>}};
constexpr Shape kEdgesF{kEdgeF, 1, kMaxEdges}, kEdgesH{kEdgeH, 1, kMaxEdges}, kEdgesW{kEdgeW, 1, kMaxEdges};
constexpr Field kBinsFields[] = {
    {"F", JsonKind::array, nullptr, &kEdgesF},
    {"H", JsonKind::array, nullptr, &kEdgesH},
    {"W", JsonKind::array, nullptr, &kEdgesW},
};
constexpr Shape kBins{kBinsFields};

constexpr Field kDefaultsFields[] = {
    {"density", JsonKind::number, [](Profile& p, JsonValue& v) { p.defaults.density = v.number; }},
    {"precision", JsonKind::text, [](Profile& p, JsonValue& v) { p.defaults.precision = std::move(*v.text); }},
    {"tail", JsonKind::boolean, [](Profile& p, JsonValue& v) { p.defaults.tail = v.boolean; }},
};
constexpr Shape kDefaults{kDefaultsFields};

constexpr Field kMassFields[] = {
    {"0.1", JsonKind::number, set_mass<0>},
    {"0.2", JsonKind::number, set_mass<1>},
    {"0.3", JsonKind::number, set_mass<2>},
    {"0.5", JsonKind::number, set_mass<3>},
};
constexpr Shape kMass{kMassFields};

constexpr Field kHeadGroupFields[] = {
    {"kernel", JsonKind::text, set_kernel},
    {"peak", JsonKind::number, set_peak},
    {"mass", JsonKind::object, nullptr, &kMass},
};
constexpr Shape kHeadGroup{kHeadGroupFields, 0, 0, [](Profile& p) { last_head(p).groups.emplace_back(); }};
constexpr Field kHeadGroupItem[] = {{"", JsonKind::object, nullptr, &kHeadGroup}};
constexpr Shape kHeadGroups{kHeadGroupItem, 1, kMaxGroups};

constexpr Field kHeadFields[] = {
    {"order", JsonKind::text, set_order},
    {"density", JsonKind::number_or_null,
     [](Profile& p, JsonValue& v) { last_head(p).density = v.null ? std::nullopt : std::optional(v.number); }},
    {"locked", JsonKind::boolean, [](Profile& p, JsonValue& v) { last_head(p).locked = v.boolean; }},
    {"groups", JsonKind::array, nullptr, &kHeadGroups},
};
// Where the model was read before, more than it says is refused at once instead of after megabytes of it.
void open_head(Profile& profile) {
    std::vector<ProfileHead>& heads = profile.layers.back().heads;
    const std::int32_t most = profile.model.heads;
    if (most > 0 && heads.size() >= static_cast<std::size_t>(most)) {
        throw JsonRefusal{"must not be there: model.heads says " + std::to_string(most)};
    }
    heads.emplace_back();
}

void open_layer(Profile& profile) {
    const std::int32_t most = profile.model.layers;
    if (most > 0 && profile.layers.size() >= static_cast<std::size_t>(most)) {
        throw JsonRefusal{"must not be there: model.layers says " + std::to_string(most)};
    }
    profile.layers.emplace_back();
}

constexpr Shape kHead{kHeadFields, 0, 0, open_head};
constexpr Field kHeadItem[] = {{"", JsonKind::object, nullptr, &kHead}};
constexpr Shape kHeads{kHeadItem, 1, kMaxHeads};

constexpr Field kLayerFields[] = {
    {"id", JsonKind::text, [](Profile& p, JsonValue& v) { p.layers.back().id = std::move(*v.text); }},
    {"heads", JsonKind::array, nullptr, &kHeads},
};
constexpr Shape kLayer{kLayerFields, 0, 0, open_layer};
constexpr Field kLayerItem[] = {{"", JsonKind::object, nullptr, &kLayer}};
constexpr Shape kLayers{kLayerItem, 1, kMaxLayers};

constexpr Field kProfileFields[] = {
    {"schema", JsonKind::text, check_schema},
    {"model", JsonKind::object, nullptr, &kModel},
    {"calibration", JsonKind::object, nullptr, &kCalibration},
    {"timestep_groups", JsonKind::array, nullptr, &kTimestepGroups},
    {"bins", JsonKind::object, nullptr, &kBins},
    {"defaults", JsonKind::object, nullptr, &kDefaults},
    {"layers", JsonKind::array, nullptr, &kLayers},
};
constexpr Shape kProfile{kProfileFields};

void unpack_kernel(KernelCode& kernel, std::size_t bins, const Place& group) {
    std::vector<std::uint8_t> code(bins);
    const std::string_view wrong = inflate(kernel.code, code);
    require_at(wrong.empty(), group.key("kernel"),
               "must be the codes of " + std::to_string(bins) + " bins, a byte each, deflated by zlib", wrong);
    kernel.code = std::move(code);
}

void unpack_kernels(Profile& profile) {
    const auto bins = static_cast<std::size_t>(profile.bins.size());
    const Place layers("layers");
    for (std::size_t l = 0; l < profile.layers.size(); ++l) {
        const Place layer = layers.at(l);
        const Place heads = layer.key("heads");
        for (std::size_t h = 0; h < profile.layers[l].heads.size(); ++h) {
            const Place head = heads.at(h);
            const Place groups = head.key("groups");
            std::vector<HeadGroup>& list = profile.layers[l].heads[h].groups;
            for (std::size_t g = 0; g < list.size(); ++g) unpack_kernel(list[g].kernel, bins, groups.at(g));
        }
    }
}

}  // namespace

Profile read_checked_profile(std::string_view json) {
    Profile profile;
    JsonReader<Profile>(profile, kProfile).read(json);
    validate_outline(profile);
    unpack_kernels(profile);
    return profile;
}

}  // namespace detail

Profile parse_profile(std::string_view json, const ProfileLimits& limits) {
    detail::check_json_limits(json, {limits.bytes, limits.string_bytes, limits.depth}, "profile");
    return detail::read_checked_profile(json);
}

}  // namespace paro
