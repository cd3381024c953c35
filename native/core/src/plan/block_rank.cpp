#include "paro/block_rank.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

#include "paro/error.h"
#include "paro/spare.h"

namespace paro {

namespace {

struct Item {
    std::uint32_t key, block;
};

// Greatest value first: unsigned order of the key is descending order of the float; -0 counts as 0.
std::uint32_t descending_key(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value + 0.0f);
    return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}

float value_of(std::uint32_t key) { return std::bit_cast<float>((key >> 31) != 0 ? key : ~key & 0x7fffffffu); }

// What is sorted, and room for it to be sorted into.
using Items = std::array<std::vector<Item>, 2>;
Spares<Items> spare_items;

// Stable, so that equal values keep the order of their indices. Four passes of 8 bits. The result is the first of both.
const std::vector<Item>& sorted_items(const BlockMap& map, Items& memory) {
    constexpr int kBits = 8, kPasses = 4;
    constexpr std::uint32_t kBuckets = 1u << kBits;
    auto& [items, other] = memory;
    std::array<std::vector<std::uint32_t>, kPasses> count;
    for (auto& pass : count) pass.assign(kBuckets, 0);
    items.resize(map.value.size());
    other.resize(map.value.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
        require(std::isfinite(map.value[i]), "map.value", "must be finite", map.value[i]);
        const std::uint32_t key = descending_key(map.value[i]);
        items[i] = {key, static_cast<std::uint32_t>(i)};
        for (int pass = 0; pass < kPasses; ++pass) ++count[pass][key >> (pass * kBits) & (kBuckets - 1)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
        std::uint32_t first = 0;
        bool one_bucket = false;
        for (std::uint32_t& bucket : count[pass]) {
            one_bucket = one_bucket || bucket == items.size();
            const std::uint32_t here = bucket;
            bucket = first;
            first += here;
        }
        if (one_bucket) continue;
        for (const Item& item : items) other[count[pass][item.key >> (pass * kBits) & (kBuckets - 1)]++] = item;
        items.swap(other);
    }
    return items;
}

}  // namespace

std::int64_t BlockRanking::budget(double density) const {
    require(density > 0.0 && density <= 1.0, "density", "must be above 0 and at most 1", density);
    return std::min<std::int64_t>(blocks(), std::llround(density * static_cast<double>(blocks())));
}

std::int64_t BlockRanking::count(double density) const {
    const std::int64_t wanted = budget(density);
    const auto first = std::lower_bound(best_rank.begin(), best_rank.end(), static_cast<std::uint32_t>(wanted));
    return wanted + (best_rank.end() - first);
}

double BlockRanking::retained(double density) const {
    const std::int64_t wanted = budget(density);
    const auto first = std::lower_bound(best_rank.begin(), best_rank.end(), static_cast<std::uint32_t>(wanted));
    const double inside = mass[wanted] + extra[first - best_rank.begin()];
    return mass.back() > 0.0 ? inside / mass.back() : 1.0;
}

BlockMask BlockRanking::mask(double density) const {
    const std::int64_t wanted = budget(density);
    BlockMask result(rows, cols);
    for (std::int64_t block = 0; block < blocks(); ++block) {
        if (contains(block, wanted)) result.set(block / cols, block % cols);
    }
    return result;
}

BlockRanking rank_blocks(const BlockMap& map) {
    require(map.rows >= 1 && map.cols >= 1, "map", "must have blocks",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    require(static_cast<std::int64_t>(map.value.size()) == map.rows * map.cols, "map.value",
            "must have rows * cols = " + std::to_string(map.rows * map.cols) + " values", map.value.size());
    require(map.value.size() < (std::size_t{1} << 31), "map", "must have fewer than 2^31 blocks", map.value.size());
    BlockRanking ranking;
    ranking.rows = map.rows;
    ranking.cols = map.cols;
    ranking.entry.resize(map.value.size());
    ranking.mass.resize(map.value.size() + 1);
    Borrowed memory(spare_items);
    const std::vector<Item>& items = sorted_items(map, *memory);
    const auto cols = static_cast<std::uint32_t>(map.cols);
    const auto tiles = static_cast<std::size_t>(map.rows);
    std::vector<bool> seen(static_cast<std::size_t>(map.rows), false);
    double sum = 0.0;
    for (std::size_t rank = 0; rank < items.size(); ++rank) {
        const std::uint32_t block = items[rank].block;
        sum += value_of(items[rank].key);  // in order, where map.value would be read all over
        ranking.mass[rank + 1] = sum;
        ranking.entry[block] = static_cast<std::uint32_t>(rank);
        if (ranking.best_rank.size() == tiles) continue;
        const std::size_t row = block / cols;
        if (seen[row]) continue;
        seen[row] = true;
        ranking.best_rank.push_back(static_cast<std::uint32_t>(rank));
        ranking.entry[block] = 0;
    }
    ranking.extra.assign(ranking.best_rank.size() + 1, 0.0);
    for (std::size_t i = ranking.best_rank.size(); i-- > 0;) {
        ranking.extra[i] = ranking.extra[i + 1] + map.value[items[ranking.best_rank[i]].block];
    }
    return ranking;
}

}  // namespace paro
