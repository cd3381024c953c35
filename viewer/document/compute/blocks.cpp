#include "document/compute/blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

namespace paro::viewer {

TokenRange token_range(const Grid& grid, AxisOrder order, std::int32_t block, std::int64_t index) {
    const std::array<int, 3> axis = axes(order);
    const std::array<std::int32_t, 3> sides = grid.sides();
    const std::int64_t fast = sides[axis[2]], middle = sides[axis[1]];
    const std::int64_t begin = index * block, end = std::min(begin + block, grid.size());
    TokenRange range;
    range.tokens = std::max<std::int64_t>(0, end - begin);
    range.first = sides;
    for (std::int64_t token = begin; token < end; ++token) {
        const std::int64_t at[3] = {token / (fast * middle), token / fast % middle, token % fast};
        for (int i = 0; i < 3; ++i) {
            const auto place = static_cast<std::int32_t>(at[i]);
            range.first[axis[i]] = std::min(range.first[axis[i]], place);
            range.last[axis[i]] = std::max(range.last[axis[i]], place);
        }
    }
    return range;
}

std::string to_string(const TokenRange& range) {
    std::string out;
    for (int i = 0; i < 3; ++i) {
        out += (i == 0 ? "" : ", ") + std::string(1, "fhw"[i]) + ' ' + std::to_string(range.first[i]);
        if (range.last[i] > range.first[i]) out += '-' + std::to_string(range.last[i]);
    }
    return out;
}

float half_to_float(std::uint16_t bits) {
    const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
    const std::uint32_t exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
    if (exponent == 0)
        return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::ldexp(static_cast<float>(fraction), -24)));
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
    return std::bit_cast<float>(sign | (exponent + 112u) << 23 | fraction << 13);
}

std::string short_number(double value) {
    char text[32];
    if (value == 0.0) return "0";
    const double size = std::abs(value);
    std::snprintf(text, sizeof text, size < 1e-3 || size >= 1e5 ? "%.1e" : "%.3g", value);
    return text;
}

}  // namespace paro::viewer
