#include "paro/known_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "paro/error.h"

namespace paro {

namespace {

// Masses in squares of `side` tokens.
struct Cells {
    std::int64_t side = 0, count = 0;
    std::span<const std::uint8_t> codes;
};

// The side of the cells that so many codes are of; nothing if there is none.
std::optional<Cells> cells_of(std::span<const std::uint8_t> codes, std::int64_t tokens) {
    for (std::int64_t side = 64; side <= 64LL << 24; side *= 2) {
        const std::int64_t count = (tokens + side - 1) / side;
        if (count * count == static_cast<std::int64_t>(codes.size())) return Cells{side, count, codes};
        if (count == 1) break;
    }
    return {};
}

const std::array<float, 256>& decoded() {
    static const std::array<float, 256> value = [] {
        std::array<float, 256> table{};
        for (int code = 1; code < 256; ++code) table[code] = static_cast<float>(std::exp2((code - 255) * 24.0 / 254.0));
        return table;
    }();
    return value;
}

// How blocks and cells of one axis go together: so many blocks a cell, or cells a block.
struct Ratio {
    std::int64_t blocks = 1, cells = 1;
    Ratio(std::int64_t block, std::int64_t side)
        : blocks(std::max<std::int64_t>(1, side / block)), cells(std::max<std::int64_t>(1, block / side)) {}
};

// The square of every index of an axis, so many to a square.
std::vector<std::int32_t> squares(std::int64_t count, std::int64_t each) {
    std::vector<std::int32_t> of(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) of[i] = static_cast<std::int32_t>(i / each);
    return of;
}

bool divides(std::int64_t block, std::int64_t side) { return side % block == 0 || block % side == 0; }

// The exact masses in place of the kernel's, as far as the cells tell; the total stays.
void refine(const Cells& cells, BlockMap& map) {
    const Ratio q(map.block_q, cells.side), kv(map.block_kv, cells.side);
    const std::int64_t height = (map.rows + q.blocks - 1) / q.blocks, width = (map.cols + kv.blocks - 1) / kv.blocks;
    const bool same = q.blocks == 1 && kv.blocks == 1;
    const auto of_cell = squares(cells.count, kv.cells), of_block = squares(map.cols, kv.blocks);
    // Exact mass and the kernel's, of every square that both can tell apart.
    std::vector<float> exact(static_cast<std::size_t>(height * width), 0.0f), own(exact);
    for (std::int64_t row = 0; row < cells.count; ++row) {
        const std::uint8_t* code = cells.codes.data() + row * cells.count;
        float* sum = exact.data() + row / q.cells * width;
        for (std::int64_t col = 0; col < cells.count; ++col) sum[of_cell[col]] += decoded()[code[col]];
    }
    double total = 0.0, found = 0.0;
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const float* value = map.value.data() + row * map.cols;
        float* sum = own.data() + row / q.blocks * width;
        for (std::int64_t col = 0; col < map.cols; ++col) {
            sum[of_block[col]] += value[col];
            total += value[col];
        }
    }
    // One block a square: the exact masses themselves, also where the kernel has nothing.
    for (std::size_t i = 0; i < exact.size() && !same; ++i) exact[i] = own[i] > 0.0f ? exact[i] / own[i] : 0.0f;
    for (std::int64_t row = 0; row < map.rows; ++row) {
        float* value = map.value.data() + row * map.cols;
        const float* by = exact.data() + row / q.blocks * width;
        for (std::int64_t col = 0; col < map.cols; ++col) {
            value[col] = same ? by[col] : value[col] * by[of_block[col]];
            found += value[col];
        }
    }
    const auto scale = static_cast<float>(total / std::max(found, 1e-30));
    for (float& value : map.value) value *= scale;
}

// What the samples saw in place of what the map says, where they saw enough.
void blend_seen(const float* sums, const float* counts, float prior, std::int64_t grid_size, BlockMap& map) {
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const std::int64_t queries = std::min<std::int64_t>(map.block_q, grid_size - row * map.block_q);
        const float known = prior / static_cast<float>(queries), whole = 1.0f / (counts[row] + prior);
        for (std::int64_t i = row * map.cols; i < (row + 1) * map.cols; ++i) {
            const auto at = static_cast<std::size_t>(i);
            map.value[at] = (sums[i] + map.value[at] * known) * whole;
        }
    }
}

// The same of samples that were summed over squares of blocks: the square's mass comes from both, and is spread within
// as the map has it, or evenly where that has nothing.
void blend_pooled(const float* sums, const float* counts, float prior, std::int64_t pool_q, std::int64_t pool_kv,
                  std::int64_t grid_size, BlockMap& map) {
    const std::int64_t width = (map.cols + pool_kv - 1) / pool_kv;
    const auto square = squares(map.cols, pool_kv);
    std::vector<float> own(static_cast<std::size_t>(width)), by(own), even(own);
    for (std::int64_t first = 0; first < map.rows; first += pool_q, sums += width, ++counts) {
        const std::int64_t last = std::min(first + pool_q, map.rows);
        std::fill(own.begin(), own.end(), 0.0f);
        for (std::int64_t row = first; row < last; ++row) {
            const float* value = map.value.data() + row * map.cols;
            for (std::int64_t col = 0; col < map.cols; ++col) own[square[col]] += value[col];
        }
        // Of every square the mean mass a query, by the map and then by both.
        const auto queries = static_cast<float>(std::min(last * map.block_q, grid_size) - first * map.block_q);
        for (std::int64_t at = 0; at < width; ++at) {
            const float mean = own[at] / queries, both = (sums[at] + mean * prior) / (*counts + prior);
            const auto cols = std::min((at + 1) * pool_kv, map.cols) - at * pool_kv;
            by[at] = mean > 0.0f ? both / mean : 0.0f;
            even[at] = mean > 0.0f ? 0.0f : both / static_cast<float>(cols);
        }
        for (std::int64_t row = first; row < last; ++row) {
            const auto tile = static_cast<float>(std::min<std::int64_t>(map.block_q, grid_size - row * map.block_q));
            float* value = map.value.data() + row * map.cols;
            for (std::int64_t col = 0; col < map.cols; ++col) {
                value[col] = value[col] / tile * by[square[col]] + even[square[col]];
            }
        }
    }
}

std::int64_t pooled(std::int64_t blocks, std::int64_t pool) { return (blocks + pool - 1) / pool; }

}  // namespace

void validate(const KnownBlocks& known, std::size_t heads, const Grid& grid, std::int32_t block_q,
              std::int32_t block_kv) {
    const BlockMap shape = map_shape(grid, AxisOrder::FHW, block_q, block_kv);
    require(known.pool_q >= 1, "known.pool_q", "must be above 0", known.pool_q);
    require(known.pool_kv >= 1, "known.pool_kv", "must be above 0", known.pool_kv);
    const auto rows = static_cast<std::size_t>(pooled(shape.rows, known.pool_q));
    const auto cols = static_cast<std::size_t>(pooled(shape.cols, known.pool_kv));
    const auto text = [](std::size_t a, std::size_t b) { return std::to_string(a) + " x " + std::to_string(b); };
    if (!known.counts.empty() || !known.sums.empty()) {
        require(known.counts.size() == heads * rows, "known.counts", "must hold heads x rows, " + text(heads, rows),
                known.counts.size());
        require(known.sums.size() == heads * rows * cols, "known.sums",
                "must hold heads x rows x cols, " + text(heads, rows) + " x " + std::to_string(cols),
                known.sums.size());
        require(known.prior > 0.0f, "known.prior", "must be above 0", known.prior);
    }
    if (known.exact.empty()) return;
    require(known.exact.size() == heads, "known.exact",
            "must hold one map for each of the " + std::to_string(heads) + " heads", known.exact.size());
    require(known.counts.empty() || known.exact_prior > 0.0f, "known.exact_prior", "must be above 0",
            known.exact_prior);
    for (std::size_t head = 0; head < heads; ++head) {
        if (known.exact[head].empty()) continue;
        const std::string name = "known.exact[" + std::to_string(head) + "]";
        const auto cells = cells_of(known.exact[head], grid.size());
        require(cells.has_value(), name,
                "must have n x n cells, n = grid tokens / 64, / 128, / 256 and so on, rounded up",
                known.exact[head].size());
        require(divides(block_q, cells->side) && divides(block_kv, cells->side), name,
                "must have cells of which a block holds a whole number, or the other way round; a block is " +
                    text(block_q, block_kv),
                "cells of " + std::to_string(cells->side));
    }
}

void apply_known(const KnownBlocks& known, std::size_t head, const Grid& grid, BlockMap& map) {
    const bool exact = head < known.exact.size() && !known.exact[head].empty();
    if (exact) refine(*cells_of(known.exact[head], grid.size()), map);
    if (known.counts.empty()) return;
    const auto rows = static_cast<std::size_t>(pooled(map.rows, known.pool_q));
    const auto cols = static_cast<std::size_t>(pooled(map.cols, known.pool_kv));
    const float* sums = known.sums.data() + head * rows * cols;
    const float* counts = known.counts.data() + head * rows;
    const float prior = exact ? known.exact_prior : known.prior;
    if (known.pool_q == 1 && known.pool_kv == 1) {
        blend_seen(sums, counts, prior, grid.size(), map);
    } else {
        blend_pooled(sums, counts, prior, known.pool_q, known.pool_kv, grid.size(), map);
    }
}

void add_samples(std::span<float> sums, std::span<float> counts, std::span<const std::int64_t> rows,
                 std::span<const float> values) {
    const std::size_t cols = counts.empty() ? 0 : sums.size() / counts.size();
    require(cols > 0 && sums.size() == cols * counts.size(), "sums",
            "must hold the same number of blocks for each of the " + std::to_string(counts.size()) + " rows of counts",
            sums.size());
    require(values.size() == rows.size() * cols, "values",
            "must hold rows x blocks, " + std::to_string(rows.size()) + " x " + std::to_string(cols), values.size());
    for (const std::int64_t row : rows) {
        require(row >= 0 && row < static_cast<std::int64_t>(counts.size()), "rows",
                "must be 0 to " + std::to_string(counts.size() - 1), row);
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto row = static_cast<std::size_t>(rows[i]);
        float* sum = sums.data() + row * cols;
        const float* value = values.data() + i * cols;
        for (std::size_t col = 0; col < cols; ++col) sum[col] += value[col];
        counts[row] += 1.0f;
    }
}

}  // namespace paro
