// Masks of any map and density, held against a plain sort.
#include <bit>
#include <cmath>
#include <numeric>

#include "fuzz_values.h"
#include "paro/block_rank.h"

namespace {

// By the definition of make_mask.
paro::BlockMask plain(const paro::BlockMap& map, double density) {
    std::vector<std::int64_t> order(map.value.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return map.value[a] > map.value[b]; });
    paro::BlockMask mask(map.rows, map.cols);
    const auto wanted = std::llround(density * static_cast<double>(order.size()));
    for (std::int64_t i = 0; i < wanted; ++i) mask.set(order[i] / map.cols, order[i] % map.cols);
    for (const std::int64_t block : order) {
        if (mask.row_count(block / map.cols) == 0) mask.set(block / map.cols, block % map.cols);
    }
    return mask;
}

float value(fuzz::Bytes& bytes, int kind) {
    if (kind == 0) return static_cast<float>(bytes.ConsumeIntegral<std::uint8_t>() % 8);  // many ties
    if (kind == 1)
        return std::ldexp(static_cast<float>(bytes.ConsumeIntegral<std::uint8_t>()), fuzz::pick(bytes, -40, 40));
    return std::bit_cast<float>(bytes.ConsumeIntegral<std::uint32_t>());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Bytes bytes(data, size);
    const fuzz::Budget budget;
    paro::BlockMap map;
    map.rows = fuzz::pick(bytes, 1, 16);
    map.cols = fuzz::pick(bytes, 1, 36);
    const int kind = fuzz::pick(bytes, 0, 2);
    const double density =
        bytes.ConsumeBool() ? bytes.ConsumeFloatingPoint<double>() : bytes.ConsumeProbability<double>();
    bool finite = true;
    for (std::int64_t i = 0; i < map.rows * map.cols; ++i) {
        map.value.push_back(bytes.remaining_bytes() > 0 ? value(bytes, kind) : static_cast<float>(i * 7919 % 101));
        finite = finite && std::isfinite(map.value.back());
    }
    const bool fits = finite && density > 0.0 && density <= 1.0;
    const bool made = fuzz::accepted([&] {
        const paro::BlockMask mask = paro::make_mask(map, density), expected = plain(map, density);
        fuzz::check(mask == expected, "a mask must hold the blocks of greatest importance");
        const paro::BlockRanking ranking = paro::rank_blocks(map);
        fuzz::check(ranking.mask(density) == mask, "a ranking must give the mask of every density");
        fuzz::check(ranking.count(density) == mask.count(), "a ranking must count the mask's blocks");
        paro::retained_mass(map, mask);
    });
    fuzz::check(made == fits, "a map of finite values and a density must be all that is asked for");
    return 0;
}
