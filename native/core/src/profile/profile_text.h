// Fields of profiles in words, for refusals and comparisons.
#pragma once

#include <string>
#include <vector>

#include "files/text.h"
#include "paro/profile.h"

namespace paro::detail {

inline std::string text_of(const std::string& text) { return '"' + clean(text) + '"'; }
inline std::string text_of(std::int32_t value) { return std::to_string(value); }
inline std::string text_of(bool value) { return value ? "true" : "false"; }
inline std::string text_of(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text + '0' : text;
}
inline std::string text_of(const Grid& grid) {
    return std::to_string(grid.f) + 'x' + std::to_string(grid.h) + 'x' + std::to_string(grid.w);
}
inline std::string text_of(const TimestepGroup& group) {
    return text_of(group.sigma_max) + " to " + text_of(group.sigma_min);
}
template <typename Item>
std::string text_of(const std::vector<Item>& items) {
    std::string text;
    for (const Item& item : items) text += (text.empty() ? "" : ", ") + text_of(item);
    return text.empty() ? "none" : text;
}

}  // namespace paro::detail
