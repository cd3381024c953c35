// The parts of a profile's rules that parsing, saving and captures share.
#pragma once

#include "paro/profile.h"

namespace paro::detail {

inline constexpr std::size_t kMaxLayers = 4096, kMaxHeads = 4096, kMaxGroups = 2, kMaxGrids = 1024, kMaxEdges = 512;
inline constexpr std::size_t kMaxTextLength = 200;                // characters of family, sampler, ...
inline constexpr std::int64_t kMaxCodes = std::int64_t{1} << 28;  // of all kernels together, once inflated
inline constexpr double kMaxSigma = 1e9;

// Everything but the kernels' sizes: what must hold before any of them is inflated.
void validate_outline(const Profile& profile);

// The text of a profile that is within the limits of JSON.
Profile read_checked_profile(std::string_view json);

bool is_layer_id(std::string_view id);

}  // namespace paro::detail
