// Two profiles side by side.
#pragma once

#include <string>
#include <vector>

#include "paro/profile.h"

namespace paro::viewer {

struct HeadDifference {
    std::string layer;
    std::size_t head = 0;
    ProfileHead a, b;                           // without kernels
    double retained_a = 0.0, retained_b = 0.0;  // stated mass at 0.3, mean over the groups
    bool order = false, density = false, locked = false, mass = false;
};

struct Comparison {
    std::vector<std::string> header;  // "calibration.prompts: 1 and 2"
    std::vector<HeadDifference> heads;
    std::vector<std::string> only_a, only_b;  // layer ids
    std::size_t compared = 0;                 // heads that both have
    bool same_model = false;
    bool equal() const { return header.empty() && heads.empty() && only_a.empty() && only_b.empty(); }
};

// Masses that differ by less than 0.005 count as equal.
Comparison compare(const Profile& a, const Profile& b);

}  // namespace paro::viewer
