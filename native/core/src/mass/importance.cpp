#include "paro/importance.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "mass/block_sums.h"
#include "paro/error.h"
#include "paro/limits.h"
#include "plan/block_choice.h"

namespace paro {

namespace {

// k(d) = k(-d) makes the map symmetric: half of it is copied.
bool is_symmetric(const OffsetKernel& kernel, std::int32_t block_q, std::int32_t block_kv) {
    return block_q == block_kv && kernel.bins.f.even() && kernel.bins.h.even() && kernel.bins.w.even();
}

// The half right of the diagonal to the left one, in squares that stay in cache.
void mirror(BlockMap& map) {
    constexpr std::int64_t kSide = 32;
    float* value = map.value.data();
    for (std::int64_t top = 0; top < map.rows; top += kSide) {
        for (std::int64_t left = 0; left <= top; left += kSide) {
            for (std::int64_t row = top; row < std::min(top + kSide, map.rows); ++row) {
                const std::int64_t end = std::min(left + kSide, row);
                for (std::int64_t col = left; col < end; ++col)
                    value[row * map.cols + col] = value[col * map.cols + row];
            }
        }
    }
}

void fill_sums(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
               std::int32_t block_kv, BlockMap& map) {
    validate(kernel);
    std::vector<float> memory = std::move(map.value);
    map = map_shape(grid, order, block_q, block_kv);
    map.value = std::move(memory);
    map.value.resize(static_cast<std::size_t>(map.rows * map.cols));
    BlockSums sums(kernel, FlatGrid(grid, order), block_q, block_kv);
    const bool symmetric = is_symmetric(kernel, block_q, block_kv);
    for (std::int64_t row = 0; row < map.rows; ++row) {
        sums.row(row, symmetric ? row : 0, {map.value.data() + row * map.cols, static_cast<std::size_t>(map.cols)});
    }
    if (symmetric) mirror(map);
}

void check_map(const BlockMap& map) {
    require(map.rows >= 1 && map.cols >= 1, "map", "must have blocks",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    require(static_cast<std::int64_t>(map.value.size()) == map.rows * map.cols, "map.value",
            "must have rows * cols = " + std::to_string(map.rows * map.cols) + " values", map.value.size());
}

}  // namespace

double BlockMap::total() const {
    double sum = 0.0;
    for (const float mass : value) sum += mass;
    return sum;
}

BlockMap map_shape(const Grid& grid, AxisOrder order, std::int32_t block_q, std::int32_t block_kv) {
    validate(grid);
    require_block("block_q", block_q);
    require_block("block_kv", block_kv);
    to_string(order);  // throws for a value outside the six
    BlockMap map{
        order, block_q, block_kv, (grid.size() + block_q - 1) / block_q, (grid.size() + block_kv - 1) / block_kv, {}};
    require(map.rows <= (std::int64_t{1} << 28) / map.cols, "grid", "must have at most 2^28 block pairs at this tile",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    return map;
}

BlockMap empty_map(const Grid& grid, AxisOrder order, std::int32_t block_q, std::int32_t block_kv) {
    BlockMap map = map_shape(grid, order, block_q, block_kv);
    map.value.assign(static_cast<std::size_t>(map.rows * map.cols), 0.0f);
    return map;
}

BlockMap kernel_sums(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                     std::int32_t block_kv) {
    BlockMap map;
    fill_sums(kernel, grid, order, block_q, block_kv, map);
    return map;
}

BlockMap importance(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                    std::int32_t block_kv) {
    BlockMap map;
    importance(kernel, grid, order, block_q, block_kv, map);
    return map;
}

void importance(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                std::int32_t block_kv, BlockMap& map) {
    fill_sums(kernel, grid, order, block_q, block_kv, map);
    std::vector<double> sums;
    double total = 0.0;
    for (std::int64_t row = 0; row < map.rows; ++row) {
        sums.push_back(sum_of({map.value.data() + row * map.cols, static_cast<std::size_t>(map.cols)}));
        total += sums.back();
    }
    const double per_query = total / static_cast<double>(grid.size());
    for (std::int64_t row = 0; row < map.rows; ++row) {
        if (sums[row] <= 0.0) continue;
        const auto queries = static_cast<double>(std::min<std::int64_t>(block_q, grid.size() - row * block_q));
        const auto scale = static_cast<float>(per_query * queries / sums[row]);
        float* value = map.value.data() + row * map.cols;
        for (std::int64_t col = 0; col < map.cols; ++col) value[col] *= scale;
    }
}

void accumulate_rows(BlockMap& map, const Grid& grid, std::span<const std::int32_t> queries,
                     std::span<const float> rows) {
    check_map(map);
    const BlockMap shape = empty_map(grid, map.order, map.block_q, map.block_kv);
    require(map.rows == shape.rows && map.cols == shape.cols, "map",
            "must have the blocks of this grid, " + std::to_string(shape.rows) + " x " + std::to_string(shape.cols),
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    const std::int64_t size = grid.size();
    require(static_cast<std::int64_t>(rows.size()) == static_cast<std::int64_t>(queries.size()) * size, "rows",
            "must have queries * grid tokens = " + std::to_string(static_cast<std::int64_t>(queries.size()) * size) +
                " values",
            rows.size());
    for (const std::int32_t query : queries) {
        require(query >= 0 && query < size, "queries", "must be grid indices, 0 to " + std::to_string(size - 1), query);
    }
    const std::vector<std::int32_t> order = permutation(grid, map.order);
    const std::vector<std::int32_t> place = inverse_permutation(order);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        const float* row = rows.data() + static_cast<std::int64_t>(i) * size;
        float* value = map.value.data() + place[queries[i]] / map.block_q * map.cols;
        for (std::int64_t col = 0; col < map.cols; ++col) {
            const std::int64_t last = std::min(size, (col + 1) * map.block_kv);
            double sum = 0.0;
            for (std::int64_t token = col * map.block_kv; token < last; ++token) sum += row[order[token]];
            value[col] += static_cast<float>(sum);
        }
    }
}

BlockMask make_mask(const BlockMap& map, double density) {
    check_map(map);
    return choose_blocks(map.value, map.rows, map.cols, density).mask;
}

double retained_mass(const BlockMap& map, const BlockMask& mask) {
    check_map(map);
    require(mask.rows() == map.rows && mask.cols() == map.cols, "mask",
            "must have " + std::to_string(map.rows) + " x " + std::to_string(map.cols) + " blocks",
            std::to_string(mask.rows()) + " x " + std::to_string(mask.cols()));
    double inside = 0.0, all = 0.0;
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const float* value = map.value.data() + row * map.cols;
        const std::uint32_t* bits = mask.row(row);
        for (std::int64_t col = 0; col < map.cols; ++col) {
            all += value[col];
            if ((bits[col / 32] >> (col % 32)) & 1u) inside += value[col];
        }
    }
    return all > 0.0 ? inside / all : 1.0;
}

}  // namespace paro
