// zlib streams of a size known beforehand.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace paro::detail {

std::vector<std::uint8_t> deflate(std::span<const std::uint8_t> bytes);

// Fills `out` from one whole zlib stream. Never writes past `out`, so a stream that would grow beyond the expected size
// is refused at once. Returns what is wrong with it, nothing when all is well.
std::string_view inflate(std::span<const std::uint8_t> packed, std::span<std::uint8_t> out);

}  // namespace paro::detail
