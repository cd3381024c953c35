#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <vector>

#include "expect_error.h"
#include "paro/known_blocks.h"

using namespace paro;
using Catch::Approx;

namespace {

// A map of 3 x 3 blocks of 64 tokens, the last ones of 22: 150 tokens.
constexpr Grid kGrid{3, 5, 10};

BlockMap map_of(std::vector<float> value, std::int32_t block_q = 64, std::int32_t block_kv = 64) {
    BlockMap map = map_shape(kGrid, AxisOrder::HFW, block_q, block_kv);
    map.value = std::move(value);
    return map;
}

float decoded(int code) { return code == 0 ? 0.0f : static_cast<float>(std::exp2((code - 255) * 24.0 / 254.0)); }

}  // namespace

TEST_CASE("known blocks: an exact map at the tile's size takes the kernel's place", "[known_blocks]") {
    const std::vector<std::uint8_t> codes{255, 0, 200, 150, 254, 0, 1, 90, 255};
    BlockMap map = map_of({4, 0, 1, 1, 0, 2, 2, 1, 1});
    const KnownBlocks known{{}, {}, 0.0f, {codes}, 0.0f};
    validate(known, 1, kGrid, 64, 64);
    apply_known(known, 0, kGrid, map);
    double sum = 0.0;
    for (const int code : codes) sum += decoded(code);
    for (std::size_t i = 0; i < codes.size(); ++i) CHECK(map.value[i] == Approx(decoded(codes[i]) * 12.0 / sum));
    CHECK(map.total() == Approx(12.0));
}

TEST_CASE("known blocks: larger cells are spread as the kernel has it, smaller ones summed", "[known_blocks]") {
    SECTION("larger") {
        // Cells of 128 tokens: 2 x 2, of 2 x 2, 2 x 1, 1 x 2 and 1 x 1 blocks. One has no mass of the kernel's.
        const std::vector<std::uint8_t> codes{255, 244, 255, 233};
        BlockMap map = map_of({3, 1, 0, 2, 2, 0, 1, 3, 4});
        const KnownBlocks known{{}, {}, 0.0f, {codes}, 0.0f};
        apply_known(known, 0, kGrid, map);
        const double whole = 1.0 + 1.0 + decoded(233), scale = 16.0 / whole;
        const std::vector<double> wanted{3.0 / 8, 1.0 / 8, 0, 2.0 / 8, 2.0 / 8, 0, 1.0 / 4, 3.0 / 4, decoded(233)};
        for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(map.value[i] == Approx(wanted[i] * scale));
    }
    SECTION("smaller along the queries") {
        const std::vector<std::uint8_t> codes{255, 0, 200, 150, 254, 0, 1, 90, 255};
        BlockMap map = map_of({1, 2, 3, 4, 5, 6}, 128, 64);
        const KnownBlocks known{{}, {}, 0.0f, {codes}, 0.0f};
        validate(known, 1, kGrid, 128, 64);
        apply_known(known, 0, kGrid, map);
        double sum = 0.0;
        for (const int code : codes) sum += decoded(code);
        for (int col = 0; col < 3; ++col) {
            CHECK(map.value[col] == Approx((decoded(codes[col]) + decoded(codes[3 + col])) * 21.0 / sum));
            CHECK(map.value[3 + col] == Approx(decoded(codes[6 + col]) * 21.0 / sum));
        }
    }
}

TEST_CASE("known blocks: nothing of a kernel stays nothing", "[known_blocks]") {
    const std::vector<std::uint8_t> codes{255, 244, 255, 233};
    BlockMap map = map_of(std::vector<float>(9, 0.0f));
    apply_known({{}, {}, 0.0f, {codes}, 0.0f}, 0, kGrid, map);
    for (const float value : map.value) CHECK(value == 0.0f);
}

TEST_CASE("known blocks: samples count by their number, the map by its prior", "[known_blocks]") {
    std::vector<float> sums(18), counts{0, 4, 12, 1, 2, 3};
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = static_cast<float>(i);
    const std::vector<float> own{4, 0, 1, 1, 0, 2, 2, 1, 1};
    for (const std::size_t head : {0u, 1u}) {
        BlockMap map = map_of(own);
        const KnownBlocks known{sums, counts, 4.0f, {}, 0.0f};
        validate(known, 2, kGrid, 64, 64);
        apply_known(known, head, kGrid, map);
        for (std::size_t i = 0; i < own.size(); ++i) {
            const std::size_t row = i / 3;
            const double tokens = row < 2 ? 64.0 : 22.0;
            const double wanted = (sums[head * 9 + i] + own[i] * 4.0 / tokens) / (counts[head * 3 + row] + 4.0);
            CHECK(map.value[i] == Approx(wanted));
        }
    }
}

TEST_CASE("known blocks: samples of squares say their mass, the map how it lies within", "[known_blocks]") {
    const std::vector<float> own{4, 0, 1, 1, 0, 2, 2, 1, 1};
    const auto blended = [&](std::int32_t pool_q, std::int32_t pool_kv, std::vector<float> sums,
                             std::vector<float> counts) {
        BlockMap map = map_of(own);
        KnownBlocks known{sums, counts, 4.0f, {}, 0.0f};
        known.pool_q = pool_q, known.pool_kv = pool_kv;
        validate(known, 1, kGrid, 64, 64);
        apply_known(known, 0, kGrid, map);
        return map.value;
    };
    SECTION("squares of 2 x 2, the last ones smaller") {
        const auto found = blended(2, 2, {6, 2, 3, 0.5f}, {8, 4});
        // Mean mass a query by the map: of 128 and 22 queries.
        const std::vector<double> mean{5.0 / 128, 3.0 / 128, 3.0 / 22, 1.0 / 22};
        const std::vector<double> sums{6, 2, 3, 0.5}, counts{8, 8, 4, 4};
        for (std::size_t i = 0; i < own.size(); ++i) {
            const std::size_t row = i / 3, at = row / 2 * 2 + i % 3 / 2;
            const double both = (sums[at] + mean[at] * 4) / (counts[at] + 4);
            CHECK(found[i] == Approx(own[i] / (row < 2 ? 64.0 : 22.0) * both / mean[at]));
        }
    }
    SECTION("rows alone; what the map has nothing of is spread evenly") {
        const auto found = blended(3, 2, {0, 5}, {5});
        CHECK(found[2] > found[0]);
        BlockMap map = map_of({0, 0, 1, 0, 0, 2, 0, 0, 1});
        const std::vector<float> sums{6, 2}, counts{8};
        KnownBlocks known{sums, counts, 4.0f, {}, 0.0f};
        known.pool_q = 3, known.pool_kv = 2;
        apply_known(known, 0, kGrid, map);
        for (const std::size_t i : {0u, 1u, 3u, 4u, 6u, 7u}) CHECK(map.value[i] == Approx(6.0 / 12 / 2));
        CHECK(map.value[5] / map.value[2] == Approx(2.0));
    }
    SECTION("without samples the map's own mass a query stays") {
        const auto found = blended(2, 2, {0, 0, 0, 0}, {0, 0});
        for (std::size_t i = 0; i < own.size(); ++i) CHECK(found[i] == Approx(own[i] / (i < 6 ? 64.0 : 22.0)));
    }
    SECTION("squares of one block are blocks") {
        const std::vector<float> sums{1, 2, 3, 4, 5, 6, 7, 8, 9}, counts{1, 2, 3};
        BlockMap map = map_of(own);
        apply_known({sums, counts, 4.0f, {}, 0.0f}, 0, kGrid, map);
        const auto found = blended(1, 1, sums, counts);
        for (std::size_t i = 0; i < own.size(); ++i) CHECK(found[i] == map.value[i]);
    }
}

TEST_CASE("known blocks: other sizes are refused", "[known_blocks]") {
    const std::vector<float> sums(18), counts(6);
    const std::vector<std::uint8_t> codes(9);
    const auto refused = [&](auto change, const char* argument, std::int32_t block = 64) {
        KnownBlocks known{sums, counts, 4.0f, {codes, {}}, 16.0f};
        change(known);
        EXPECT_ERROR(validate(known, 2, kGrid, block, 64), argument);
    };
    validate({}, 2, kGrid, 64, 64);
    refused([&](KnownBlocks& k) { k.counts = k.counts.first(5); }, "known.counts");
    refused([&](KnownBlocks& k) { k.counts = {}; }, "known.counts");
    refused([&](KnownBlocks& k) { k.sums = k.sums.first(9); }, "known.sums");
    refused([&](KnownBlocks& k) { k.prior = 0.0f; }, "known.prior");
    refused([&](KnownBlocks& k) { k.pool_q = 0; }, "known.pool_q");
    refused([&](KnownBlocks& k) { k.pool_kv = -1; }, "known.pool_kv");
    refused([&](KnownBlocks& k) { k.pool_q = 2; }, "known.counts");
    refused([&](KnownBlocks& k) { k.pool_kv = 2; }, "known.sums");
    refused([&](KnownBlocks& k) { k.exact_prior = 0.0f; }, "known.exact_prior");
    refused([&](KnownBlocks& k) { k.exact.pop_back(); }, "known.exact");
    refused([&](KnownBlocks& k) { k.exact[0] = k.exact[0].first(8); }, "known.exact[0]");
    // The samples' sizes are those of this tile, the cells' 64 tokens are not.
    refused([&](KnownBlocks& k) { k.sums = {}, k.counts = {}; }, "known.exact[0]", 96);
    refused([](KnownBlocks&) {}, "block_q", 0);
}

TEST_CASE("known blocks: samples are added to their rows", "[known_blocks]") {
    std::vector<float> sums{1, 2, 3, 4, 5, 6}, counts{1, 0, 2};
    const std::vector<std::int64_t> rows{2, 0, 2};
    const std::vector<float> values{10, 20, 30, 40, 50, 60};
    add_samples(sums, counts, rows, values);
    CHECK(sums == std::vector<float>{31, 42, 3, 4, 65, 86});
    CHECK(counts == std::vector<float>{2, 0, 4});
    add_samples(sums, counts, {}, {});
    CHECK(counts == std::vector<float>{2, 0, 4});
}

TEST_CASE("known blocks: samples that do not fit change nothing", "[known_blocks]") {
    std::vector<float> sums(6), counts(3), odd(7);
    const std::vector<std::int64_t> rows{0, 1}, high{0, 3}, low{0, -1};
    const std::vector<float> values{1, 1, 1, 1};
    EXPECT_ERROR(add_samples(odd, counts, rows, values), "sums");
    EXPECT_ERROR(add_samples(sums, {}, rows, values), "sums");
    EXPECT_ERROR(add_samples(sums, counts, rows, std::span(values).first(3)), "values");
    EXPECT_ERROR(add_samples(sums, counts, high, values), "rows");
    EXPECT_ERROR(add_samples(sums, counts, low, values), "rows");
    CHECK(sums == std::vector<float>(6));
    CHECK(counts == std::vector<float>(3));
}
