// Gains of keys: fitting, rebuilding, saving.
#include <algorithm>
#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <numeric>
#include <random>

#include "expect_error.h"
#include "kernel_fixtures.h"
#include "paro/order_select.h"
#include "paro/profile_merge.h"
#include "profile_samples.h"

using namespace paro;

namespace {

// One query's softmax row: near keys, and `sink` times as much score for the first frame's keys.
std::vector<float> row_of(const Grid& grid, std::int64_t query, double sink) {
    std::vector<float> row;
    double sum = 0.0;
    const auto at = [&](std::int64_t i) {
        return std::array<std::int64_t, 3>{i / grid.w / grid.h, i / grid.w % grid.h, i % grid.w};
    };
    for (std::int64_t key = 0; key < grid.size(); ++key) {
        double distance = 0.0;
        for (int axis = 0; axis < 3; ++axis) distance += std::abs(static_cast<double>(at(key)[axis] - at(query)[axis]));
        const double value = std::exp(-0.5 * distance) + (at(key)[0] == 0 ? sink : 0.0);
        row.push_back(static_cast<float>(value));
        sum += value;
    }
    for (float& value : row) value = static_cast<float>(value / sum);
    return row;
}

OffsetKernel observed(const Grid& grid, const Bins& bins, double sink) {
    OffsetAccumulator seen(bins, grid);
    std::mt19937 random(3);
    for (int i = 0; i < 128; ++i) {
        const auto query = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(grid.size()));
        seen.add_row(query, row_of(grid, query, sink));
    }
    return seen.kernel();
}

// What masks from the kernel keep of the exact map, in its best order.
double kept(const OffsetKernel& kernel, const Grid& grid, double sink) {
    const AxisOrder order = score_orders(kernel, grid, 16, 16, 0.3).by_retained_mass;
    BlockMap exact = empty_map(grid, order, 16, 16);
    for (std::int32_t query = 0; query < grid.size(); ++query) {
        accumulate_rows(exact, grid, std::span(&query, 1), row_of(grid, query, sink));
    }
    return retained_mass(exact, make_mask(importance(kernel, grid, order, 16, 16), 0.3));
}

}  // namespace

TEST_CASE("key gains: a kernel with them finds a sink that offsets alone cannot tell of", "[key_gains]") {
    const Grid grid{8, 8, 10};
    const double plain = kept(observed(grid, Bins::even(grid), 0.1), grid, 0.1);
    const double with = kept(observed(grid, Bins::observed(grid), 0.1), grid, 0.1);
    INFO(plain << " without, " << with << " with gains");
    CHECK(with > plain + 0.03);
    // Where there is none they stay near 1 and cost nothing.
    const OffsetKernel even = observed(grid, Bins::observed(grid), 0.0);
    for (std::size_t i = static_cast<std::size_t>(even.bins.size()); i < even.value.size(); ++i) {
        CHECK(even.value[i] > 0.6f);
        CHECK(even.value[i] < 1.7f);
    }
    CHECK(kept(even, grid, 0.0) > kept(observed(grid, Bins::even(grid), 0.0), grid, 0.0) - 0.01);
}

TEST_CASE("key gains: the sink's frame gets the gain, and it is fitted once", "[key_gains]") {
    const Grid grid{8, 8, 10};
    const OffsetKernel kernel = observed(grid, Bins::observed(grid), 0.3);
    const float* gains = kernel.value.data() + kernel.bins.size();
    for (int f = 1; f < 8; ++f) CHECK(gains[0] > 2.0f * gains[f]);
    OffsetAccumulator seen(Bins::observed(grid), grid), other(seen.bins(), grid);
    CHECK(seen.kernel().value.size() == static_cast<std::size_t>(seen.bins().codes()));
    CHECK(seen.kernel().value.back() == 1.0f);
    for (std::int64_t query = 0; query < 300; ++query) seen.add_row(query, row_of(grid, query, 0.3));
    const std::vector<float> before = seen.kernel().value;
    seen.add_row(301, row_of(grid, 301, 0.0));
    const std::vector<float> after = seen.kernel().value;
    CHECK(std::equal(before.end() - 26, before.end(), after.end() - 26));
    other.merge(seen);
    CHECK(other.kernel().value.front() == Catch::Approx(after.front()).epsilon(0.02));
    CHECK(*(other.kernel().value.end() - 26) == Catch::Approx(*(after.end() - 26)).epsilon(0.02));
}

TEST_CASE("key gains: importance is the offsets' times the mean gain of a block's keys", "[key_gains]") {
    const Grid grid{3, 4, 6};
    Bins bins = Bins::observed(grid);
    OffsetKernel kernel = paro::test::random_kernel(bins, 9);
    std::vector<float> gain;
    for (std::size_t i = 0; i < 13; ++i) gain.push_back(0.5f + 0.25f * static_cast<float>(i));
    kernel.value.insert(kernel.value.end(), gain.begin(), gain.end());
    OffsetKernel offsets{Bins::even(grid), {kernel.value.begin(), kernel.value.begin() + kernel.bins.size()}};
    for (const AxisOrder order : kAxisOrders) {
        const BlockMap sums = kernel_sums(offsets, grid, order, 8, 5), map = importance(kernel, grid, order, 8, 5);
        CHECK(kernel_sums(kernel, grid, order, 8, 5).value == sums.value);
        const std::vector<std::int32_t> tokens = permutation(grid, order);
        for (std::int64_t row = 0; row < map.rows; ++row) {
            std::vector<double> expected;
            for (std::int64_t col = 0; col < map.cols; ++col) {
                double mean = 0.0, count = 0.0;
                for (std::int64_t i = col * 5; i < std::min<std::int64_t>(72, col * 5 + 5); ++i, ++count) {
                    const std::int32_t key = tokens[i];
                    mean += gain[key / 24] * gain[3 + key / 6 % 4] * gain[7 + key % 6];
                }
                expected.push_back(sums.value[row * sums.cols + col] * mean / count);
            }
            const double all = std::accumulate(expected.begin(), expected.end(), 0.0);
            double own = 0.0;
            for (std::int64_t col = 0; col < map.cols; ++col) own += map.value[row * map.cols + col];
            for (std::int64_t col = 0; col < map.cols; ++col) {
                CHECK(map.value[row * map.cols + col] / own == Catch::Approx(expected[col] / all).epsilon(1e-4));
            }
        }
    }
    CHECK_NOTHROW(paper_metric(kernel, grid, AxisOrder::WHF, 8));
}

TEST_CASE("key gains: profiles keep them, files without them read as before", "[key_gains]") {
    const Grid grid{3, 4, 5};
    Profile profile = samples::profile(grid, 1, 2, 2, Bins::observed(grid));
    for (auto& head : profile.layers[0].heads) {
        for (auto& group : head.groups) {
            for (int i = 0; i < 12; ++i) group.kernel.code.push_back(static_cast<std::uint8_t>(20 * i));
        }
    }
    const std::string text = dump_profile(profile);
    CHECK(text.find("\"keys\": [3, 4, 5]") != std::string::npos);
    CHECK(parse_profile(text) == profile);
    const std::string old = dump_profile(samples::small());
    CHECK(old.find("keys") == std::string::npos);
    CHECK(parse_profile(old).bins.key_places() == 0);

    const OffsetKernel kernel = dequantise(profile.bins, profile.layers[0].heads[0].groups[0].kernel);
    CHECK(kernel.value[60] == Catch::Approx(std::exp2(-8.0)));
    CHECK(quantise(kernel) == profile.layers[0].heads[0].groups[0].kernel);
    CHECK(coarse(profile.bins, quantise(kernel)).code[71] == 220);

    const auto refused = [&](const std::string& from, const std::string& to, const char* message) {
        const std::string error = samples::error_of([&] { parse_profile(samples::replaced(text, from, to)); });
        CHECK_THAT(error, Catch::Matchers::StartsWith(message));
    };
    refused("[3, 4, 5]}", "[3, 4]}", "bins.keys must hold at least 3 items");
    refused("[3, 4, 5]}", "[3, 4, 5, 6]}", "bins.keys must not be longer than 3");
    refused("[3, 4, 5]}", "[3, 0, 5]}", "bins.keys[1] must be from 1 to 128");
    refused("[3, 4, 5]}", "[3, 4, 129]}", "bins.keys[2] must be from 1 to 128");
    refused("[3, 4, 5]}", "[3, 4, 4.5]}", "bins.keys[2]");
    refused("[3, 4, 5]}", "[3, 4, 6]}", "layers[0].heads[0].groups[0].kernel holds fewer codes");
    refused("[3, 4, 5]}", "[3, 4, 4]}", "layers[0].heads[0].groups[0].kernel holds more codes");
    refused(", \"keys\": [3, 4, 5]}", "}", "bins.keys is required by schema paroattention/2");
    refused("paroattention/2", "paroattention/1", "bins.keys must not stand in schema paroattention/1");
    refused("paroattention/2", "paroattention/3", "schema must be");
    refused("\"keys\": [3, 4, 5]}", "\"keys\": [3, 4, 5], \"keys\": [3, 4, 5]}", "bins must hold each key once");
    Bins bad = profile.bins;
    bad.keys = {3, 0, 5};
    EXPECT_ERROR(validate(bad), "bins.keys");
}

TEST_CASE("key gains: merged with a kernel without any, and over other sides", "[key_gains]") {
    const Grid grid{4, 6, 8};
    const auto flat = [&](const Bins& bins, float gain) {
        Profile profile = samples::profile(grid, 1, 1, 1, Bins::even(grid));
        profile.bins = bins;
        OffsetKernel kernel{bins, std::vector<float>(static_cast<std::size_t>(bins.size()), 0.01f)};
        kernel.value.resize(static_cast<std::size_t>(bins.codes()), gain);
        profile.layers[0].heads[0].groups[0].kernel = quantise(kernel);
        return profile;
    };
    Bins half = Bins::observed(grid);
    half.keys = {2, 3, 4};
    for (const Bins& other : {Bins::even(grid), half}) {
        const bool none = other.key_places() == 0;
        const Profile merged = merge_profiles(flat(Bins::observed(grid), 4.0f), flat(other, 2.0f), 0.3, 1);
        CHECK(merged.bins == Bins::observed(grid));
        const OffsetKernel kernel = dequantise(merged.bins, merged.layers[0].heads[0].groups[0].kernel);
        CHECK(kernel.value.back() == Catch::Approx(none ? 2.5 : 3.0).epsilon(0.05));
        CHECK(kernel.value.front() == Catch::Approx(0.01));
    }
}
