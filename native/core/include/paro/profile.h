// Profiles: what is saved and shared, JSON schema "paroattention/1".
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paro/offset_kernel.h"

namespace paro {

inline constexpr std::string_view kProfileSchema = "paroattention/1";
inline constexpr std::array<double, 4> kMassDensities = {0.1, 0.2, 0.3, 0.5};

struct ProfileLimits {
    std::size_t bytes = 64u << 20;        // of the file, checked before parsing
    std::size_t string_bytes = 6u << 20;  // of any one string: 2^22 codes that do not deflate take 5.6 MB
    int depth = 16;
};

struct ProfileModel {
    std::string family, fingerprint;
    std::int32_t layers = 0, heads = 0, head_dim = 0;
    std::string patches;  // hash of LoRA and other patches, empty without
    friend bool operator==(const ProfileModel&, const ProfileModel&) = default;
};

struct ProfileCalibration {
    std::vector<Grid> grids;
    std::int32_t steps = 0;
    std::string sampler;
    std::int32_t prompts = 0;  // how many were merged
    std::int32_t queries = 0;  // per head and model evaluation
    std::string date, version;
    friend bool operator==(const ProfileCalibration&, const ProfileCalibration&) = default;
};

// sigma_max >= sigma > sigma_min. At most two in a file, sigmas falling.
struct TimestepGroup {
    double sigma_max = 0.0, sigma_min = 0.0;
    friend bool operator==(const TimestepGroup&, const TimestepGroup&) = default;
};

struct ProfileDefaults {
    double density = 0.3;
    std::string precision = "int8";  // int8 int4 bf16
    bool tail = true;
    friend bool operator==(const ProfileDefaults&, const ProfileDefaults&) = default;
};

struct HeadGroup {
    KernelCode kernel;
    std::array<double, 4> mass{};  // retained mass at kMassDensities, tile 64 x 64
    friend bool operator==(const HeadGroup&, const HeadGroup&) = default;
};

struct ProfileHead {
    AxisOrder order = AxisOrder::FHW;  // shared by the groups
    std::optional<double> density;
    bool locked = false;
    std::vector<HeadGroup> groups;  // one per timestep group
    friend bool operator==(const ProfileHead&, const ProfileHead&) = default;
};

struct ProfileLayer {
    std::string id;  // block_type.block_index.occurrence
    std::vector<ProfileHead> heads;
    friend bool operator==(const ProfileLayer&, const ProfileLayer&) = default;
};

struct Profile {
    ProfileModel model;
    ProfileCalibration calibration;
    std::vector<TimestepGroup> timestep_groups;
    Bins bins;
    ProfileDefaults defaults;
    std::vector<ProfileLayer> layers;
    friend bool operator==(const Profile&, const Profile&) = default;
};

// Every rule of the schema on a value already in memory, among them at most 2^28 codes in all kernels together. Throws
// Error naming the place, e.g. "layers[3].heads[1].order".
void validate(const Profile& profile);

// Refuses unknown and duplicate keys, wrong sizes, NaN, depth and size beyond the limits, each with the place named.
Profile parse_profile(std::string_view json, const ProfileLimits& limits = {});
// One head per line, the same bytes for the same profile, numbers that read back exactly. Validates first.
std::string dump_profile(const Profile& profile);

// Regular files only. Errors name the file.
Profile load_profile(const std::filesystem::path& path, const ProfileLimits& limits = {});
// Atomic: a temporary file beside it, flushed, then renamed.
void save_profile(const Profile& profile, const std::filesystem::path& path);

// The longest name in bytes of UTF-8: with the end of its capture's name it fills the 255 that file systems allow.
inline constexpr std::size_t kMaxProfileName = 255 - std::string_view(".capture.safetensors").size();

// What may be the name of a profile's file, without its ending, on every system: UTF-8 of any alphabet, spaces and
// brackets too. No control, invisible or direction characters, none of <>:"/\|?*, no leading dot, no dot or space at
// the end, no Windows device name (with or without an extension). Throws Error, which ends with a name that would do.
// Names in NFC and NFD are both valid; whoever looks one up has to compare them as one.
void validate_profile_name(std::string_view name);
// The rule that a name breaks, such as "must not be empty"; empty for a valid name.
std::string_view profile_name_rule(std::string_view name);
// The same name where it is valid, else the nearest that is: whatever may not stand in it is left out or becomes '_'.
std::string suggest_profile_name(std::string_view name);

enum class GridMatch : std::uint8_t { exact, near, far };
// near: every side within 0.75 to 1.35 of a calibrated one.
GridMatch match_grid(const Profile& profile, const Grid& grid);

// Index of the timestep group that holds sigma; the nearest group when none does.
std::int32_t timestep_group(const Profile& profile, double sigma);

}  // namespace paro
