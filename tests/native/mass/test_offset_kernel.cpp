#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "expect_error.h"
#include "kernel_fixtures.h"
#include "paro/offset_kernel.h"

using namespace paro;

namespace {

std::vector<float> random_row(std::int64_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    std::vector<float> row(static_cast<std::size_t>(size));
    for (float& value : row) value = uniform(random) / static_cast<float>(size);
    return row;
}

// The definition, pair by pair.
std::vector<double> brute_kernel(const Bins& bins, const Grid& grid, const std::vector<std::int64_t>& queries,
                                 const std::vector<std::vector<float>>& rows) {
    std::vector<double> sum(static_cast<std::size_t>(bins.size())), pairs(sum.size());
    for (std::size_t i = 0; i < queries.size(); ++i) {
        for (std::int64_t key = 0; key < grid.size(); ++key) {
            const auto at = [&](std::int64_t token, int axis) {
                const std::int64_t place[3] = {token / grid.w / grid.h, token / grid.w % grid.h, token % grid.w};
                return static_cast<std::int32_t>(place[axis]);
            };
            const std::int64_t bin = bins.index(at(key, 0) - at(queries[i], 0), at(key, 1) - at(queries[i], 1),
                                                at(key, 2) - at(queries[i], 2));
            sum[bin] += rows[i][key];
            pairs[bin] += 1.0;
        }
    }
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = pairs[i] > 0 ? sum[i] / pairs[i] : 0.0;
    return sum;
}

}  // namespace

TEST_CASE("offset kernel: edges are exact up to 4, grow by about 1.35 and end at size - 1", "[offset_kernel]") {
    for (std::int32_t size = 1; size <= 700; ++size) {
        const AxisBins bins = even_bins(size);
        REQUIRE(bins.even());
        REQUIRE(bins.edges.front() == 0);
        REQUIRE(bins.edges.back() == size - 1);
        for (std::size_t i = 1; i < bins.edges.size(); ++i) {
            const std::int32_t before = bins.edges[i - 1], edge = bins.edges[i];
            REQUIRE(before < edge);
            if (edge <= 4) REQUIRE(edge == static_cast<std::int32_t>(i));
            if (edge > 4) REQUIRE(edge <= std::lround(1.35 * before));
            if (edge > 5 && edge < size - 1) REQUIRE(edge >= std::lround(1.25 * before));
        }
        const AxisBins both = signed_bins(size);
        REQUIRE(both.edges.size() == 2 * bins.edges.size() - 1);
        REQUIRE(both.even() == (size == 1));
        for (std::size_t i = 0; i < both.edges.size(); ++i) {
            REQUIRE(both.edges[i] == -both.edges[both.edges.size() - 1 - i]);
            REQUIRE((i == 0 || both.edges[i - 1] < both.edges[i]));
        }
    }
    CHECK(even_bins(22).edges == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 21});
    CHECK(even_bins(9, 1.0).edges == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
    CHECK(even_bins(22, 1.2).count() == 15);
    EXPECT_ERROR(even_bins(0), "size");
    EXPECT_ERROR(even_bins(9, 0.9), "growth");
    EXPECT_ERROR(even_bins(9, std::nan("")), "growth");
    EXPECT_ERROR(signed_bins(-1), "size");
}

TEST_CASE("offset kernel: an offset belongs to the nearest edge, a tie to the one nearer 0", "[offset_kernel]") {
    const auto slow_bin = [](const AxisBins& bins, std::int64_t offset) {
        if (bins.even()) offset = std::abs(offset);
        std::size_t best = 0;
        for (std::size_t i = 1; i < bins.edges.size(); ++i) {
            const std::int64_t now = std::abs(bins.edges[i] - offset), then = std::abs(bins.edges[best] - offset);
            if (now < then || (now == then && std::abs(bins.edges[i]) < std::abs(bins.edges[best]))) best = i;
        }
        return static_cast<std::int32_t>(best);
    };
    for (const AxisBins& bins :
         {even_bins(45), signed_bins(45), AxisBins{{-9, -3, 4, 20}}, AxisBins{{2, 8}}, AxisBins{{-7}}}) {
        for (std::int32_t offset = -60; offset <= 60; ++offset) {
            INFO(offset);
            REQUIRE(bins.bin(offset) == slow_bin(bins, offset));
        }
    }
    constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min();
    CHECK(even_bins(45).bin(least) == even_bins(45).count() - 1);
    CHECK(signed_bins(45).bin(least) == 0);
    CHECK(even_bins(45).bin(6) == 5);  // between 5 and 7
    CHECK(signed_bins(22).bin(-6) == signed_bins(22).bin(-5));
}

TEST_CASE("offset kernel: default bins are as fine as their number allows", "[offset_kernel]") {
    CHECK(Bins::even({10, 16, 22}).size() == 10 * 16 * 22);  // every offset
    CHECK(Bins::even({21, 30, 52}).size() == 15 * 17 * 21);  // Wan 1.3B, 480p
    CHECK(Bins::even({21, 45, 80}).size() == 13 * 18 * 21);  // Wan 14B, 720p
    for (const Grid& grid :
         {Grid{1, 1, 1}, Grid{1, 128, 128}, Grid{200, 3, 4}, Grid{1, 1, 70000}, Grid{600, 600, 600}}) {
        const Bins bins = Bins::even(grid);
        CHECK_NOTHROW(validate(bins));
        CHECK(bins.size() <= kEvenBins);
        CHECK(bins.f.edges.back() == grid.f - 1);
        CHECK(bins.h.edges.back() == grid.h - 1);
        CHECK(bins.w.edges.back() == grid.w - 1);
    }
}

TEST_CASE("offset kernel: coarse codes keep peak, zeros and every value within half a step", "[offset_kernel]") {
    const Bins bins = Bins::even({6, 7, 8});
    OffsetKernel kernel = paro::test::random_kernel(bins, 12);
    kernel.value[0] = 0.3f;
    const KernelCode fine = quantise(kernel), code = coarse(bins, fine);
    CHECK(code.peak == fine.peak);
    std::set<std::uint8_t> used(code.code.begin(), code.code.end());
    CHECK(used.size() <= 22);
    const OffsetKernel was = dequantise(bins, fine), is = dequantise(bins, code);
    for (std::size_t i = 0; i < kernel.value.size(); ++i) {
        CHECK((fine.code[i] == 0) == (code.code[i] == 0));
        if (fine.code[i] == 0) continue;
        const double octaves = std::abs(std::log2(static_cast<double>(is.value[i]) / was.value[i]));
        const double below = std::log2(static_cast<double>(was.value[0]) / was.value[i]);
        CHECK(octaves <= (below < 12.0 ? 4.01 : 16.01) * 24.0 / 254.0);
    }
    CHECK(coarse(bins, code) == code);  // rounding again changes nothing
    // A head that looks at itself most keeps its fine steps as far down as an even spread lies.
    OffsetKernel sharp{Bins::even({21, 45, 80}), {}};
    sharp.value.assign(static_cast<std::size_t>(sharp.bins.size()), 1.0f / 75600);
    sharp.value[0] = 0.9f;
    sharp.value[7] = 1.7f / 75600;
    const OffsetKernel kept = dequantise(sharp.bins, coarse(sharp.bins, quantise(sharp)));
    CHECK(kept.value[7] / kept.value[8] > 1.4f);
    OffsetKernel empty{bins, std::vector<float>(static_cast<std::size_t>(bins.size()), 0.0f)};
    CHECK(coarse(bins, quantise(empty)) == quantise(empty));
}

TEST_CASE("offset kernel: bad bins are named", "[offset_kernel]") {
    const Bins good = Bins::even({3, 5, 7});
    CHECK_NOTHROW(validate(good));
    CHECK(good.index(-2, 4, -6) == good.size() - 1);
    Bins bad = good;
    bad.f.edges.clear();
    EXPECT_ERROR(validate(bad), "bins.F");
    bad = good;
    bad.h.edges = {0, 2, 2};
    EXPECT_ERROR(validate(bad), "bins.H");
    bad.h.edges = {3, 1};
    EXPECT_ERROR(validate(bad), "bins.H");
    bad = good;
    bad.w.edges = {0, (1 << 20) + 1};
    EXPECT_ERROR(validate(bad), "bins.W");
    bad.w.edges.resize(513);
    for (std::int32_t i = 0; i < 513; ++i) bad.w.edges[i] = i;
    EXPECT_ERROR(validate(bad), "bins.W");
    bad.w.edges.pop_back();
    CHECK_NOTHROW(validate(bad));
    bad.f = bad.h = bad.w;
    EXPECT_ERROR(validate(bad), "bins must be at most 2^22");
    EXPECT_ERROR(Bins::even({0, 1, 1}), "grid.f");
    EXPECT_ERROR(Bins::signed_offsets({1, 1, -1}), "grid.w");
}

TEST_CASE("offset kernel: the code holds 24 octaves within half a step", "[offset_kernel]") {
    OffsetKernel kernel{{{{0, 1}}, {{0, 1, 2}}, {{0, 1, 2, 3, 4}}}, {}};
    const float peak = 0.37f;
    kernel.value = {peak, 0.0f, peak * 0.5f};
    for (int i = 3; i < 30; ++i) kernel.value.push_back(peak * static_cast<float>(std::exp2(-0.86 * i)));
    const KernelCode code = quantise(kernel);
    CHECK(code.peak == peak);
    CHECK(code.code[0] == 255);
    CHECK(code.code[1] == 0);
    CHECK(code.code[2] == std::lround(255 - 254.0 / 24));
    const OffsetKernel back = dequantise(kernel.bins, code);
    for (std::size_t i = 0; i < kernel.value.size(); ++i) {
        const double value = kernel.value[i], half_step = std::exp2(12.0 / 254) - 1 + 1e-6;
        INFO(i);
        if (value >= peak * std::exp2(-24.0)) {
            CHECK(back.value[i] == Catch::Approx(value).epsilon(half_step));
        } else {
            CHECK(std::abs(back.value[i] - value) <= peak * std::exp2(-25.0) * (1 + 1e-6));
        }
    }
    // What is in the code already comes back unchanged.
    CHECK(quantise(back) == code);
}

TEST_CASE("offset kernel: values below the smallest code go to the nearer of it and zero", "[offset_kernel]") {
    OffsetKernel kernel{{{{0}}, {{0}}, {{0, 1, 2, 3}}},
                        {1.0f, std::exp2(-24.0f), std::exp2(-24.6f), std::exp2(-25.4f)}};
    CHECK(quantise(kernel).code == std::vector<std::uint8_t>{255, 1, 1, 0});
    kernel.value = {0.0f, 0.0f, 0.0f, 0.0f};
    CHECK(quantise(kernel) == KernelCode{{0, 0, 0, 0}, 0.0f});
    CHECK(dequantise(kernel.bins, quantise(kernel)).value == kernel.value);
    // A peak among the smallest floats must not divide to infinity.
    kernel.value = {1e-45f, 0.0f, 1e-45f, 0.0f};
    CHECK(quantise(kernel).code == std::vector<std::uint8_t>{255, 0, 255, 0});
}

TEST_CASE("offset kernel: every code round-trips", "[offset_kernel]") {
    Bins bins{{{0}}, {{0}}, {{}}};
    for (std::int32_t i = 0; i < 256; ++i) bins.w.edges.push_back(i);
    KernelCode code{{}, 0.0173f};
    for (int c = 0; c < 256; ++c) code.code.push_back(static_cast<std::uint8_t>(c));
    const OffsetKernel kernel = dequantise(bins, code);
    CHECK(kernel.value[0] == 0.0f);
    CHECK(kernel.value[1] == Catch::Approx(0.0173 * std::exp2(-24.0)));
    CHECK(std::is_sorted(kernel.value.begin(), kernel.value.end()));
    CHECK(quantise(kernel) == code);
}

TEST_CASE("offset kernel: bad codes and kernels are named", "[offset_kernel]") {
    const Bins bins = Bins::even({2, 3, 1});
    EXPECT_ERROR(dequantise(bins, {{1, 2, 3, 4, 5}, 1.0f}), "code must have 6 values");
    EXPECT_ERROR(dequantise(bins, {std::vector<std::uint8_t>(6), -1.0f}), "peak");
    EXPECT_ERROR(dequantise(bins, {std::vector<std::uint8_t>(6), INFINITY}), "peak");
    EXPECT_ERROR(quantise({bins, std::vector<float>(5)}), "kernel.value");
    EXPECT_ERROR(quantise({bins, {0, 0, NAN, 0, 0, 0}}), "kernel.value");
    EXPECT_ERROR(quantise({bins, {0, 0, -1, 0, 0, 0}}), "kernel.value");
}

TEST_CASE("offset kernel: accumulated rows equal the pair by pair mean", "[offset_kernel]") {
    for (const Grid& grid : {Grid{3, 5, 7}, Grid{1, 9, 13}, Grid{11, 2, 1}}) {
        for (const Bins& bins : {Bins::even(grid), Bins::signed_offsets(grid), Bins::even({2, 3, 4})}) {
            OffsetAccumulator one(bins, grid), left(bins, grid), right(bins, grid);
            std::vector<std::int64_t> queries = {0, grid.size() - 1, grid.size() / 2, 8, 8};
            std::vector<std::vector<float>> rows;
            for (std::size_t i = 0; i < queries.size(); ++i) {
                rows.push_back(random_row(grid.size(), static_cast<unsigned>(i)));
                one.add_row(queries[i], rows[i]);
                (i < 2 ? left : right).add_row(queries[i], rows[i]);
            }
            const std::vector<double> expected = brute_kernel(bins, grid, queries, rows);
            left.merge(right);
            REQUIRE(one.rows() == 5);
            REQUIRE(left.rows() == 5);
            const std::vector<float> value = one.kernel().value, merged = left.kernel().value;
            // Each row's sum is rounded to whole units of 2^-32, so that no order of rows changes what they add up to.
            const double rounding = 5 * 0x1p-33;
            for (std::size_t i = 0; i < expected.size(); ++i) {
                REQUIRE(value[i] == Catch::Approx(expected[i]).epsilon(1e-6).margin(rounding));
                REQUIRE(merged[i] == value[i]);
            }
        }
    }
}

TEST_CASE("offset kernel: sums collected elsewhere count as rows do", "[offset_kernel]") {
    const Grid grid{1, 2, 3};
    const Bins bins = Bins::even(grid);  // 1 x 2 x 3 bins
    OffsetAccumulator one(bins, grid), two(bins, grid);
    one.add_row(0, std::vector<float>{0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f, 0.03125f});
    one.add_row(4, std::vector<float>{0.0f, 0.0f, 0.0f, 0.25f, 0.5f, 0.25f});
    two.add_row(0, std::vector<float>{0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f, 0.03125f});
    // The second row again: 4 is (0, 1, 1), so each line holds one key at distance 0 and two at 1.
    const std::vector<double> sum = {0.5, 0.5, 0.0, 0.0, 0.0, 0.0}, pairs = {1, 2, 0, 1, 2, 0};
    two.add_sums(sum, pairs, 1);
    CHECK(two.rows() == 2);
    CHECK(two.kernel().value == one.kernel().value);

    const std::vector<float> before = two.kernel().value;
    EXPECT_ERROR(two.add_sums(sum, std::vector<double>(5), 1), "pairs must have 6 values");
    EXPECT_ERROR(two.add_sums(std::vector<double>{1, 1, NAN, 1, 1, 1}, pairs, 1), "sum[2] must be finite");
    EXPECT_ERROR(two.add_sums(sum, std::vector<double>{1, 1, 1, -1, 1, 1}, 1), "pairs[3] must be finite and not neg");
    EXPECT_ERROR(two.add_sums(sum, pairs, -1), "rows must not be negative");
    CHECK(two.rows() == 2);
    CHECK(two.kernel().value == before);
}

TEST_CASE("offset kernel: a refused row leaves the accumulator as it was", "[offset_kernel]") {
    const Grid grid{3, 5, 7};
    OffsetAccumulator sums(Bins::even(grid), grid);
    sums.add_row(17, random_row(105, 1));
    const std::vector<float> before = sums.kernel().value;
    std::vector<float> bad = random_row(105, 2);
    bad[41] = std::numeric_limits<float>::infinity();
    EXPECT_ERROR(sums.add_row(3, bad), "probabilities[41] must be finite (got inf)");
    bad[41] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_ERROR(sums.add_row(3, bad), "probabilities[41] must be finite");
    EXPECT_ERROR(sums.add_row(3, random_row(104, 2)), "probabilities must have 105");
    EXPECT_ERROR(sums.add_row(105, random_row(105, 2)), "query");
    EXPECT_ERROR(sums.add_row(-1, random_row(105, 2)), "query");
    EXPECT_ERROR(sums.merge(OffsetAccumulator(Bins::signed_offsets(grid), grid)), "other must have the same bins");
    EXPECT_ERROR(sums.merge(OffsetAccumulator(Bins::even(grid), {5, 3, 7})), "other must have the same grid");
    CHECK(sums.rows() == 1);
    CHECK(sums.kernel().value == before);
}
