#include "paro/plan_words.h"

#include <algorithm>

#include "paro/plan.h"

namespace paro {

PlanWords plan_layout(const Plan& plan) {
    return {static_cast<std::int64_t>(plan.heads.size()), plan.q_blocks().grid_blocks, plan.kv_blocks().grid_blocks};
}

std::vector<std::int32_t> plan_words(const Plan& plan) {
    const PlanWords layout = plan_layout(plan);
    const BlockLayout q = plan.q_blocks();
    std::vector<std::int32_t> words(static_cast<std::size_t>(layout.count()));
    // Where the next entry of each head's schedule belongs.
    std::vector<std::int64_t> next;
    auto masks = words.begin() + layout.masks();
    for (std::int64_t head = 0; head < layout.heads; ++head) {
        const HeadPlan& own = plan.heads[static_cast<std::size_t>(head)];
        words[static_cast<std::size_t>(layout.orders() + head)] = static_cast<std::int32_t>(own.order);
        masks = std::copy(own.mask.words().begin(), own.mask.words().end(), masks);
        next.push_back(layout.schedule() + head * layout.rows);
    }
    for (const Tile& tile : plan.schedule) {
        if (!q.is_grid_block(tile.index)) continue;
        std::int64_t& place = next[static_cast<std::size_t>(tile.head)];
        words[static_cast<std::size_t>(place++)] = static_cast<std::int32_t>(tile.index - q.first_grid_block());
    }
    return words;
}

}  // namespace paro
