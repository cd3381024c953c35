// Profiles as files, and the questions that are asked of them.
#include "paro/profile.h"

#include <cmath>

#include "files/file_io.h"
#include "files/json_reader.h"
#include "paro/error.h"
#include "profile/profile_rules.h"

namespace paro {

Profile load_profile(const std::filesystem::path& path, const ProfileLimits& limits) {
    detail::InputFile file(path);
    require(file.size() <= limits.bytes, detail::show(path),
            "must not exceed " + std::to_string(limits.bytes) + " bytes", file.size());
    try {
        const detail::JsonLimits json{limits.bytes, limits.string_bytes, limits.depth};
        return detail::read_checked_profile(
            detail::read_json(file, static_cast<std::size_t>(file.size()), json, "profile"));
    } catch (const Error& error) {
        // Errors of the file system name the file themselves.
        const std::string name = detail::show(path), what = error.what();
        throw Error(what.starts_with(name) ? what : name + ": " + what);
    }
}

void save_profile(const Profile& profile, const std::filesystem::path& path) {
    std::string text;
    try {
        text = dump_profile(profile);
    } catch (const Error& error) {
        throw Error(detail::show(path) + ": " + error.what());
    }
    // What is saved must be readable again.
    const std::size_t most = ProfileLimits{}.bytes;
    require(text.size() <= most, detail::show(path), "must not exceed " + std::to_string(most) + " bytes", text.size());
    detail::AtomicFile file(path);
    file.write(text);
    file.commit();
}

GridMatch match_grid(const Profile& profile, const Grid& grid) {
    GridMatch best = GridMatch::far;
    for (const Grid& calibrated : profile.calibration.grids) {
        if (calibrated == grid) return GridMatch::exact;
        bool near = true;
        for (std::size_t i = 0; i < 3; ++i) {
            const std::int64_t side = std::int64_t{100} * grid.sides()[i], known = calibrated.sides()[i];
            near = near && side >= 75 * known && side <= 135 * known;
        }
        if (near) best = GridMatch::near;
    }
    return best;
}

std::int32_t timestep_group(const Profile& profile, double sigma) {
    std::int32_t nearest = 0;
    double least = INFINITY;
    for (std::size_t i = 0; i < profile.timestep_groups.size(); ++i) {
        const TimestepGroup& group = profile.timestep_groups[i];
        // Samplers hand sigma over in float32 and sometimes rescaled: a hair beside a border is the border, as it is
        // when a run is observed.
        constexpr double kHair = 1.0 + 1e-5;
        if (sigma <= group.sigma_max * kHair && sigma > group.sigma_min * kHair) return static_cast<std::int32_t>(i);
        const double distance = sigma > group.sigma_max ? sigma - group.sigma_max : group.sigma_min - sigma;
        if (distance < least) {
            least = distance;
            nearest = static_cast<std::int32_t>(i);
        }
    }
    return nearest;
}

}  // namespace paro
