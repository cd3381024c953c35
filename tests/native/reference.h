// Block-sparse attention in fp64, straight from the definition in attention.h, over plain arrays.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "paro/plan.h"
#include "paro/thread_pool.h"

namespace paro::reference {

// One head: [tokens][head_dim] in original order, q k v and the result.
inline std::vector<double> attention(const Plan& plan, std::int32_t head, std::int32_t head_dim,
                                     const std::vector<double>& q, const std::vector<double>& k,
                                     const std::vector<double>& v, double sm_scale, bool tail) {
    const HeadPlan& head_plan = plan.heads[head];
    const BlockLayout q_blocks = plan.q_blocks(), kv_blocks = plan.kv_blocks();
    const auto q_index = pack_index(plan.layout, head_plan.order, plan.block_q);
    const auto kv_index = pack_index(plan.layout, head_plan.order, plan.block_kv);
    // Eight sums side by side, which compilers turn into vectors.
    const auto dot = [&](const double* a, const double* b) {
        double sums[8] = {};
        for (std::int32_t d = 0; d < head_dim; d += 8) {
            for (int i = 0; i < 8; ++i) sums[i] += a[d + i] * b[d + i];
        }
        return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    };

    // Mean key and value of every key block; used where a block is skipped.
    std::vector<std::vector<double>> mean_k, mean_v;
    for (std::int64_t b = 0; b < kv_blocks.blocks(); ++b) {
        const std::int32_t tokens = tokens_in_block(plan.layout, kv_blocks, b);
        std::vector<double> mk(head_dim, 0.0), mv(head_dim, 0.0);
        for (std::int32_t j = 0; j < tokens; ++j) {
            const std::int64_t token = kv_index[b * plan.block_kv + j];
            for (std::int32_t d = 0; d < head_dim; ++d) {
                mk[d] += k[token * head_dim + d] / tokens;
                mv[d] += v[token * head_dim + d] / tokens;
            }
        }
        mean_k.push_back(mk);
        mean_v.push_back(mv);
    }

    std::vector<double> o(q.size(), 0.0);
    parallel_for(q_blocks.padded_length(), 0, [&](std::int64_t place, int) {
        const std::int64_t token = q_index[place];
        if (token < 0) return;
        const std::int64_t tile = place / plan.block_q;
        std::vector<double> scores;
        std::vector<const double*> values;
        const double* query = &q[token * head_dim];
        for (std::int64_t b = 0; b < kv_blocks.blocks(); ++b) {
            const bool maskable = q_blocks.is_grid_block(tile) && kv_blocks.is_grid_block(b);
            const std::int32_t tokens = tokens_in_block(plan.layout, kv_blocks, b);
            if (!maskable || head_plan.mask.get(tile - q_blocks.first_grid_block(), b - kv_blocks.first_grid_block())) {
                for (std::int32_t j = 0; j < tokens; ++j) {
                    const std::int64_t key = kv_index[b * plan.block_kv + j];
                    scores.push_back(dot(query, &k[key * head_dim]) * sm_scale);
                    values.push_back(&v[key * head_dim]);
                }
            } else if (tail) {
                scores.push_back(dot(query, mean_k[b].data()) * sm_scale + std::log(tokens));
                values.push_back(mean_v[b].data());
            }
        }
        const double top = *std::max_element(scores.begin(), scores.end());
        double sum = 0.0;
        double* out = &o[token * head_dim];
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const double p = std::exp(scores[i] - top);
            sum += p;
            for (std::int32_t d = 0; d < head_dim; ++d) out[d] += p * values[i][d];
        }
        for (std::int32_t d = 0; d < head_dim; ++d) out[d] /= sum;
    });
    return o;
}

}  // namespace paro::reference
