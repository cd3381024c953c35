// The rules of captures, apart from the file that holds them.
#pragma once

#include <optional>

#include "paro/capture.h"

namespace paro::detail {

inline constexpr std::int64_t kMaxMapSide = 512;

// Bytes of an element; nothing for a dtype that captures do not hold.
std::optional<std::int64_t> element_size(std::string_view dtype);

// Bytes of the whole tensor; nothing where a side is below 1 or the product leaves 63 bits.
std::optional<std::int64_t> checked_size(std::string_view dtype, const std::vector<std::int64_t>& shape);

// Keys, dtypes, shapes and pairs against the profile, without a look at any bytes.
void validate_layout(const Capture& capture);

// The bytes: as many as the shape asks for, probabilities in rows, tokens of the grid in queries.
void validate_contents(const Capture& capture);

}  // namespace paro::detail
