// A plan as the words that the kernels walk.
#pragma once

#include <vector>

#include "test_attention_problem.h"

namespace paro {

// orders, schedule, masks: see PlanParams.
inline std::vector<std::int32_t> plan_blob(const Plan& plan) {
    std::vector<std::int32_t> words;
    for (const HeadPlan& head : plan.heads) words.push_back(static_cast<std::int32_t>(head.order));
    const BlockLayout q = plan.q_blocks();
    for (std::int32_t head = 0; head < static_cast<std::int32_t>(plan.heads.size()); ++head) {
        for (const Tile& tile : plan.schedule) {
            if (tile.head == head && q.is_grid_block(tile.index)) {
                words.push_back(tile.index - static_cast<std::int32_t>(q.first_grid_block()));
            }
        }
    }
    for (const HeadPlan& head : plan.heads)
        words.insert(words.end(), head.mask.words().begin(), head.mask.words().end());
    return words;
}

}  // namespace paro
