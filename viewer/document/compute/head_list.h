// The overview's list: which heads are shown, in which order, and how keys move through them.
#pragma once

#include <array>
#include <vector>

#include "document/document.h"

namespace paro::viewer {

enum class SortBy : std::uint8_t { place, worst, order, density };
enum class ColorBy : std::uint8_t { map, order, retained, error };

struct HeadFilter {
    std::array<bool, 6> orders{true, true, true, true, true, true};
    bool dense_only = false, edited_only = false, locked_only = false, captured_only = false;
    bool any() const;
};

// Indices of heads: filtered, then sorted; ties keep their place.
std::vector<std::size_t> list_heads(const Document& document, SortBy sort, const HeadFilter& filter);

// The index after moving by columns and rows in a list of `columns` a row; stays inside. current need not be listed.
std::size_t move_in(const std::vector<std::size_t>& list, std::size_t current, int dx, int dy, int columns);

}  // namespace paro::viewer
