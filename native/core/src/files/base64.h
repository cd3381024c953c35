// Standard base64 with padding (RFC 4648, section 4), strict.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace paro::detail {

std::string base64_encode(std::span<const std::uint8_t> bytes);

// Nothing for other characters, blanks, missing or misplaced padding, or spare bits that are not zero: every value has
// one spelling.
std::optional<std::vector<std::uint8_t>> base64_decode(std::string_view text);

}  // namespace paro::detail
