#include "document/compute/compare.h"

#include <cmath>
#include <map>
#include <sstream>

namespace paro::viewer {

namespace {

template <typename Value>
void note(Comparison& out, const char* what, const Value& a, const Value& b) {
    if (a == b) return;
    std::ostringstream text;
    text << what << ": " << a << " and " << b;
    out.header.push_back(text.str());
}

std::string grids(const Profile& profile) {
    std::string out;
    for (const Grid& grid : profile.calibration.grids) {
        out += (out.empty() ? "" : ", ") + std::to_string(grid.f) + 'x' + std::to_string(grid.h) + 'x' +
               std::to_string(grid.w);
    }
    return out;
}

double mean_mass(const ProfileHead& head) {
    double sum = 0.0;
    for (const HeadGroup& group : head.groups) sum += group.mass[2];
    return head.groups.empty() ? 0.0 : sum / static_cast<double>(head.groups.size());
}

void compare_headers(const Profile& a, const Profile& b, Comparison& out) {
    note(out, "model.family", a.model.family, b.model.family);
    note(out, "model.fingerprint", a.model.fingerprint.substr(0, 12), b.model.fingerprint.substr(0, 12));
    note(out, "model.patches", a.model.patches, b.model.patches);
    note(out, "model.heads", a.model.heads, b.model.heads);
    note(out, "calibration.grids", grids(a), grids(b));
    note(out, "calibration.steps", a.calibration.steps, b.calibration.steps);
    note(out, "calibration.sampler", a.calibration.sampler, b.calibration.sampler);
    note(out, "calibration.prompts", a.calibration.prompts, b.calibration.prompts);
    note(out, "calibration.queries", a.calibration.queries, b.calibration.queries);
    note(out, "calibration.date", a.calibration.date, b.calibration.date);
    note(out, "timestep groups", a.timestep_groups.size(), b.timestep_groups.size());
    note(out, "defaults.density", a.defaults.density, b.defaults.density);
    note(out, "defaults.precision", a.defaults.precision, b.defaults.precision);
    note(out, "defaults.tail", a.defaults.tail ? "on" : "off", b.defaults.tail ? "on" : "off");
}

HeadDifference difference(const std::string& layer, std::size_t head, const ProfileHead& a, const ProfileHead& b) {
    HeadDifference out;
    out.layer = layer;
    out.head = head;
    out.a = {a.order, a.density, a.locked, {}};
    out.b = {b.order, b.density, b.locked, {}};
    out.retained_a = mean_mass(a);
    out.retained_b = mean_mass(b);
    out.order = a.order != b.order;
    out.density = a.density != b.density;
    out.locked = a.locked != b.locked;
    out.mass = std::abs(out.retained_a - out.retained_b) >= 0.005;
    return out;
}

}  // namespace

Comparison compare(const Profile& a, const Profile& b) {
    Comparison out;
    out.same_model = a.model.fingerprint == b.model.fingerprint;
    compare_headers(a, b, out);
    std::map<std::string, const ProfileLayer*> in_b;
    for (const ProfileLayer& layer : b.layers) in_b[layer.id] = &layer;
    for (const ProfileLayer& layer : a.layers) {
        const auto found = in_b.find(layer.id);
        if (found == in_b.end()) {
            out.only_a.push_back(layer.id);
            continue;
        }
        const auto& others = found->second->heads;
        for (std::size_t head = 0; head < std::min(layer.heads.size(), others.size()); ++head) {
            ++out.compared;
            HeadDifference found_difference = difference(layer.id, head, layer.heads[head], others[head]);
            const HeadDifference& d = found_difference;
            if (d.order || d.density || d.locked || d.mass) out.heads.push_back(std::move(found_difference));
        }
        in_b.erase(found);
    }
    for (const ProfileLayer& layer : b.layers) {
        if (in_b.contains(layer.id)) out.only_b.push_back(layer.id);
    }
    return out;
}

}  // namespace paro::viewer
