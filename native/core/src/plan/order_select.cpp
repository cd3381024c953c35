#include "paro/order_select.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "grid/flat_grid.h"
#include "mass/block_sums.h"
#include "paro/error.h"
#include "paro/plan.h"
#include "plan/block_choice.h"

namespace paro {

namespace {

// "Nearly zero" and "sparse" as published.
constexpr float kSmallEntry = 1e-3f;
constexpr double kSparseShare = 0.9;

void select(OrderScores& scores) {
    const auto best = std::max_element(scores.retained.begin(), scores.retained.end());
    scores.by_retained_mass = kAxisOrders[best - scores.retained.begin()];
}

// Greatest kernel value over a range of bins: a sparse table along the fastest axis, walked bin by bin along the
// lines'.
class GreatestValue {
   public:
    GreatestValue(const OffsetKernel& kernel, const FlatGrid& grid)
        : axis_{kernel_axis(kernel, grid.axis[0]), kernel_axis(kernel, grid.axis[1]),
                kernel_axis(kernel, grid.axis[2])},
          bins_{BinTable(*axis_[0].bins, grid.planes), BinTable(*axis_[1].bins, grid.lines),
                BinTable(*axis_[2].bins, grid.length)},
          levels_{kernel.value} {
        // levels_[l][i] = greatest of the 2^l values from i on along the fastest axis.
        const std::int64_t count = axis_[2].bins->count(), stride = axis_[2].stride;
        for (std::int64_t span = 1; 2 * span <= count; span *= 2) {
            const std::vector<float>& half = levels_.back();
            std::vector<float> level = half;
            for (std::int64_t i = 0; i < static_cast<std::int64_t>(half.size()); ++i) {
                const std::int64_t bin = i / stride % count;
                if (bin + span < count) level[i] = std::max(half[i], half[i + span * stride]);
            }
            levels_.push_back(std::move(level));
        }
    }

    // Over all pairs of a query box and a key box: the offsets between them fill a rectangle.
    float between(const Box& query, const Box& key) const {
        const std::int64_t first = bins_[0][key.plane - query.plane] * axis_[0].stride;
        const auto [line, line_end] =
            range(1, key.line_begin - query.line_end + 1, key.line_end - 1 - query.line_begin);
        const auto [bin, bin_end] = range(2, key.begin - query.end + 1, key.end - 1 - query.begin);
        const auto level = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bin_end - bin))) - 1;
        const std::int64_t left = bin * axis_[2].stride,
                           right = (bin_end - (std::int64_t{1} << level)) * axis_[2].stride;
        const float* values = levels_[level].data() + first;
        float greatest = 0.0f;
        for (std::int64_t i = line; i < line_end; ++i) {
            const float* row = values + i * axis_[1].stride;
            greatest = std::max({greatest, row[left], row[right]});
        }
        return greatest;
    }

   private:
    struct Range {
        std::int64_t begin, end;
    };

    // Bins of the offsets low .. high: bins follow each other, by |offset| on an even axis.
    Range range(int axis, std::int64_t low, std::int64_t high) const {
        if (axis_[axis].bins->even()) {
            const std::int64_t farthest = std::max(-low, high);
            low = low <= 0 && high >= 0 ? 0 : std::min(std::abs(low), std::abs(high));
            high = farthest;
        }
        return {bins_[axis][low], bins_[axis][high] + 1};
    }

    std::array<KernelAxis, 3> axis_;
    std::array<BinTable, 3> bins_;
    std::vector<std::vector<float>> levels_;
};

// Means over the blocks of a map.
class MetricSum {
   public:
    void add(double entries, double small, double greatest, double sum) {
        ++blocks_;
        if (small >= kSparseShare * entries) ++sparse_;
        // An empty block is uniform. The bounds only cut what rounding may add.
        incoherence_ += sum > 0.0 ? std::clamp(greatest * entries / sum, 1.0, entries) : 1.0;
    }
    PaperMetric mean() const {
        const auto blocks = static_cast<double>(blocks_);
        return {static_cast<double>(sparse_) / blocks, incoherence_ / blocks};
    }

   private:
    std::int64_t blocks_ = 0, sparse_ = 0;
    double incoherence_ = 0.0;
};

std::int64_t tokens_of(std::int64_t block, std::int32_t size, std::int64_t tokens) {
    return std::min<std::int64_t>(size, tokens - block * size);
}

// To [0, 1] over the six orders; all equal count 0.
std::array<double, 6> normalised(const std::array<double, 6>& values) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    std::array<double, 6> result{};
    if (*high > *low) {
        for (std::size_t i = 0; i < 6; ++i) result[i] = (values[i] - *low) / (*high - *low);
    }
    return result;
}

}  // namespace

void map_order(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
               std::int32_t block_kv, OrderMap& map) {
    const BlockMap shape = map_shape(grid, order, block_q, block_kv);
    map.whole = shape.rows <= 2 * kScoredTiles;
    map.rows = map.whole ? shape.rows : kScoredTiles;
    map.cols = shape.cols;
    if (map.whole) {
        map.value = importance(kernel, grid, order, block_q, block_kv).value;
        return;
    }
    validate(kernel);
    BlockSums sums(kernel, FlatGrid(grid, order), block_q, block_kv);
    map.value.resize(static_cast<std::size_t>(map.rows * map.cols));
    for (std::int64_t i = 0; i < map.rows; ++i) {
        const std::span<float> row(map.value.data() + i * map.cols, static_cast<std::size_t>(map.cols));
        sums.row((2 * i + 1) * shape.rows / (2 * map.rows), 0, row);
        // As importance has it: every query's mass is the same (and only the grid's last tile may be short).
        const double sum = sum_of(row);
        const auto scale = sum > 0.0 ? static_cast<float>(1.0 / sum) : 0.0f;
        for (float& mass : row) mass *= scale;
    }
}

std::vector<double> retained_of(const OrderMap& map, std::span<const double> densities) {
    if (!map.whole) return retained_at(map.value, densities);
    std::vector<double> retained;
    for (const double density : densities) {
        retained.push_back(choose_blocks(map.value, map.rows, map.cols, density).retained());
    }
    return retained;
}

AxisOrder same_flattened(const Grid& grid, AxisOrder order) {
    std::size_t same = 0;
    while (flattened_axes(grid, kAxisOrders[same]) != flattened_axes(grid, order)) ++same;
    return kAxisOrders[same];
}

OrderScores score_orders(const OffsetKernel& kernel, const Grid& grid, std::int32_t block_q, std::int32_t block_kv,
                         double density, std::array<OrderMap, 6>* maps) {
    validate(grid);
    OrderScores scores;
    OrderMap own;
    for (std::size_t i = 0; i < kAxisOrders.size(); ++i) {
        const auto same = static_cast<std::size_t>(same_flattened(grid, kAxisOrders[i]));
        if (same < i) {
            scores.retained[i] = scores.retained[same];
            continue;
        }
        OrderMap& map = maps != nullptr ? (*maps)[i] : own;
        map_order(kernel, grid, kAxisOrders[i], block_q, block_kv, map);
        scores.retained[i] = retained_of(map, {&density, 1}).front();
    }
    select(scores);
    return scores;
}

OrderScores score_orders(std::span<const BlockMap> maps, double density) {
    require(maps.size() == kAxisOrders.size(), "maps", "must hold six maps, one per order", maps.size());
    OrderScores scores;
    for (std::size_t i = 0; i < maps.size(); ++i) {
        require(maps[i].order == kAxisOrders[i], "maps[" + std::to_string(i) + "].order",
                "must be " + std::string(to_string(kAxisOrders[i])), to_string(maps[i].order));
        scores.retained[i] = plan_head(maps[i], density).retained;
    }
    select(scores);
    return scores;
}

PaperMetric paper_metric(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block) {
    const BlockMap sums = kernel_sums(kernel, grid, order, block, block);
    OffsetKernel indicator = kernel;  // its importance counts the small entries, exactly: at most 4096^2 = 2^24
    for (float& value : indicator.value) value = value < kSmallEntry ? 1.0f : 0.0f;
    const BlockMap small = kernel_sums(indicator, grid, order, block, block);

    const FlatGrid flat(grid, order);
    const GreatestValue greatest(kernel, flat);
    std::vector<std::vector<Box>> boxes;
    for (std::int64_t b = 0; b < sums.rows; ++b) {
        boxes.push_back(boxes_of(flat, b * block, std::min((b + 1) * block, flat.size())));
    }
    MetricSum metric;
    for (std::int64_t row = 0; row < sums.rows; ++row) {
        for (std::int64_t col = 0; col < sums.cols; ++col) {
            float peak = 0.0f;
            for (const Box& query : boxes[row]) {
                for (const Box& key : boxes[col]) peak = std::max(peak, greatest.between(query, key));
            }
            const std::int64_t entries = tokens_of(row, block, flat.size()) * tokens_of(col, block, flat.size());
            const std::int64_t at = row * sums.cols + col;
            metric.add(static_cast<double>(entries), small.value[at], peak, sums.value[at]);
        }
    }
    return metric.mean();
}

std::array<double, 6> paper_scores(const std::array<PaperMetric, 6>& metrics, double alpha) {
    require(alpha >= 0.0 && alpha <= 1.0, "alpha", "must be 0 to 1", alpha);
    std::array<double, 6> sparsity{}, incoherence{}, score{};
    for (std::size_t i = 0; i < metrics.size(); ++i) {
        sparsity[i] = metrics[i].sparsity;
        incoherence[i] = metrics[i].incoherence;
        require(std::isfinite(sparsity[i]) && std::isfinite(incoherence[i]), "metrics[" + std::to_string(i) + "]",
                "must be finite", std::isfinite(sparsity[i]) ? incoherence[i] : sparsity[i]);
    }
    sparsity = normalised(sparsity);
    incoherence = normalised(incoherence);
    for (std::size_t i = 0; i < score.size(); ++i) {
        score[i] = alpha * (1.0 - sparsity[i]) + (1.0 - alpha) * incoherence[i];
    }
    return score;
}

AxisOrder select_by_paper_metric(const std::array<PaperMetric, 6>& metrics, double alpha) {
    const std::array<double, 6> score = paper_scores(metrics, alpha);
    return kAxisOrders[std::min_element(score.begin(), score.end()) - score.begin()];
}

}  // namespace paro
