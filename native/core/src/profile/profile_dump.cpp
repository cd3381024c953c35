// Profiles as JSON, written: one head per line, keys in the schema's order, the same bytes for the same profile.
#include <array>
#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "files/base64.h"
#include "files/deflate.h"
#include "profile/profile_rules.h"

namespace paro {
namespace {

std::string json_text(std::string_view text) { return nlohmann::json(text).dump(); }

// Shortest digits that read back as the same double.
std::string number(double value) { return nlohmann::json(value).dump(); }

// Fewer digits where they read back as the same float, by way of a double.
std::string number(float value) {
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    double again = 0.0;
#ifdef __cpp_lib_to_chars
    std::from_chars(text.data(), end, again);
#else
    again = std::strtod(text.data(), nullptr);  // libc++ before 20; the text ends with zeros
#endif
    return static_cast<float>(again) == value ? std::string(text.data(), end) : number(double{value});
}

// "a": x, "b": y
class Members {
   public:
    Members& add(std::string_view key, std::string_view json) {
        if (!text_.empty()) text_ += ", ";
        text_.append(1, '"').append(key).append("\": ").append(json);
        return *this;
    }
    Members& add(std::string_view key, std::int32_t value) { return add(key, std::to_string(value)); }
    Members& add(std::string_view key, double value) { return add(key, number(value)); }
    // A bare literal would be taken for a bool again.
    Members& add(std::string_view key, bool value) { return add(key, std::string_view(value ? "true" : "false")); }
    Members& add_text(std::string_view key, std::string_view value) { return add(key, json_text(value)); }

    std::string object() const { return '{' + text_ + '}'; }

   private:
    std::string text_;
};

template <typename List, typename Write>
std::string array(const List& list, Write write) {
    std::string out;
    for (const auto& item : list) out += (out.empty() ? "" : ", ") + write(item);
    return '[' + out + ']';
}

std::string edges(const AxisBins& bins) {
    return array(bins.edges, [](std::int32_t edge) { return std::to_string(edge); });
}

std::string dump_model(const ProfileModel& model) {
    Members out;
    out.add_text("family", model.family).add_text("fingerprint", model.fingerprint);
    out.add("layers", model.layers).add("heads", model.heads).add("head_dim", model.head_dim);
    return out.add_text("patches", model.patches).object();
}

std::string dump_calibration(const ProfileCalibration& calibration) {
    const auto side = [](std::int32_t value) { return std::to_string(value); };
    Members out;
    out.add("grids", array(calibration.grids, [&](const Grid& grid) { return array(grid.sides(), side); }));
    out.add("steps", calibration.steps).add_text("sampler", calibration.sampler);
    out.add("prompts", calibration.prompts).add("queries", calibration.queries);
    return out.add_text("date", calibration.date).add_text("version", calibration.version).object();
}

std::string dump_head_group(const HeadGroup& group) {
    Members mass, out;
    mass.add("0.1", group.mass[0]).add("0.2", group.mass[1]).add("0.3", group.mass[2]).add("0.5", group.mass[3]);
    out.add("kernel", '"' + detail::base64_encode(detail::deflate(group.kernel.code)) + '"');
    return out.add("peak", number(group.kernel.peak)).add("mass", mass.object()).object();
}

std::string dump_head(const ProfileHead& head) {
    Members out;
    out.add_text("order", to_string(head.order)).add("density", head.density ? number(*head.density) : "null");
    return out.add("locked", head.locked).add("groups", array(head.groups, dump_head_group)).object();
}

std::string dump_layer(const ProfileLayer& layer) {
    std::string out = "{\"id\": " + json_text(layer.id) + ", \"heads\": [";
    for (const ProfileHead& head : layer.heads) {
        out += &head == &layer.heads.front() ? "\n " : ",\n ";
        out += dump_head(head);
    }
    return out + "\n]}";
}

}  // namespace

std::string dump_profile(const Profile& profile) {
    validate(profile);
    const auto dump_group = [](const TimestepGroup& group) {
        return Members().add("sigma_max", group.sigma_max).add("sigma_min", group.sigma_min).object();
    };
    const Bins& bins = profile.bins;
    const ProfileDefaults& defaults = profile.defaults;
    std::string out = "{\n\"schema\": ";
    out += json_text(kProfileSchema);
    out += ",\n\"model\": " + dump_model(profile.model);
    out += ",\n\"calibration\": " + dump_calibration(profile.calibration);
    out += ",\n\"timestep_groups\": " + array(profile.timestep_groups, dump_group);
    Members axes;
    axes.add("F", edges(bins.f)).add("H", edges(bins.h)).add("W", edges(bins.w));
    out += ",\n\"bins\": " + axes.object();
    out += ",\n\"defaults\": ";
    out += Members()
               .add("density", defaults.density)
               .add_text("precision", defaults.precision)
               .add("tail", defaults.tail)
               .object();
    out += ",\n\"layers\": [";
    for (const ProfileLayer& layer : profile.layers) {
        out += &layer == &profile.layers.front() ? "\n" : ",\n";
        out += dump_layer(layer);
    }
    return out + "\n]\n}\n";
}

}  // namespace paro
