#include "document/compute/head_list.h"

#include <algorithm>

namespace paro::viewer {

bool HeadFilter::any() const {
    const bool all_orders = std::ranges::all_of(orders, [](bool on) { return on; });
    return !all_orders || dense_only || edited_only || locked_only || captured_only;
}

std::vector<std::size_t> list_heads(const Document& document, SortBy sort, const HeadFilter& filter) {
    std::vector<std::size_t> list;
    for (std::size_t i = 0; i < document.head_count(); ++i) {
        const HeadState& head = document.heads()[i];
        if (!filter.orders[static_cast<std::size_t>(head.order)]) continue;
        if (filter.edited_only && !document.edited(i)) continue;
        if (filter.locked_only && !head.locked) continue;
        if (filter.captured_only && !document.rows_captured(i)) continue;
        if (filter.dense_only && !document.kept_dense(i)) continue;
        list.push_back(i);
    }
    if (sort == SortBy::place) return list;
    std::vector<double> key(document.head_count(), 0.0);
    for (const std::size_t i : list) {
        if (sort == SortBy::worst) key[i] = document.retained(i);
        if (sort == SortBy::order) key[i] = static_cast<double>(document.heads()[i].order);
        if (sort == SortBy::density) key[i] = document.density(i);
    }
    std::ranges::stable_sort(list, {}, [&](std::size_t i) { return key[i]; });
    return list;
}

std::size_t move_in(const std::vector<std::size_t>& list, std::size_t current, int dx, int dy, int columns) {
    if (list.empty()) return current;
    const auto found = std::ranges::find(list, current);
    if (found == list.end()) return list.front();
    const auto at = found - list.begin();
    const auto last = static_cast<std::ptrdiff_t>(list.size()) - 1;
    std::ptrdiff_t next = at + dx + static_cast<std::ptrdiff_t>(dy) * columns;
    // A step beyond the first or last row stays where it is; one along the row wraps to the next.
    if (dy != 0 && (next < 0 || next > last)) next = at;
    return list[static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(next, 0, last))];
}

}  // namespace paro::viewer
