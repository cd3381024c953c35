// What a block of a reordered grid stands for, in words.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "paro/axis_order.h"

namespace paro::viewer {

// Inclusive ranges along F, H and W that the tokens of a block touch.
struct TokenRange {
    std::array<std::int32_t, 3> first{}, last{};
    std::int64_t tokens = 0;
};

// Block `index` of `block` tokens of the grid flattened in `order`; the last one may be short.
TokenRange token_range(const Grid& grid, AxisOrder order, std::int32_t block, std::int64_t index);
// "f 0-3, h 2, w 0-15"
std::string to_string(const TokenRange& range);

// Value of an IEEE half.
float half_to_float(std::uint16_t bits);

// "1.2e-03", "0.042": three significant digits.
std::string short_number(double value);

}  // namespace paro::viewer
