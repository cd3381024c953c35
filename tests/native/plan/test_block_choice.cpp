// The fast choice of blocks against a plain sort.
#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "expect_error.h"
#include "paro/importance.h"
#include "paro/plan.h"

using namespace paro;

namespace {

BlockMap map_of(std::int64_t rows, std::int64_t cols, std::vector<float> values) {
    BlockMap map;
    map.rows = rows;
    map.cols = cols;
    map.value = std::move(values);
    return map;
}

// As importance.h states it: greatest first, ties to the lower index, then a best block for every tile without one.
BlockMask sorted_choice(const BlockMap& map, double density) {
    std::vector<std::size_t> index(map.value.size());
    std::iota(index.begin(), index.end(), std::size_t{0});
    std::stable_sort(index.begin(), index.end(), [&](auto a, auto b) { return map.value[a] > map.value[b]; });
    BlockMask mask(map.rows, map.cols);
    const auto wanted = static_cast<std::size_t>(std::llround(density * static_cast<double>(index.size())));
    for (std::size_t i = 0; i < wanted; ++i) {
        mask.set(static_cast<std::int64_t>(index[i]) / map.cols, static_cast<std::int64_t>(index[i]) % map.cols);
    }
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const float* own = map.value.data() + row * map.cols;
        if (mask.row_count(row) == 0) mask.set(row, std::max_element(own, own + map.cols) - own);
    }
    return mask;
}

}  // namespace

TEST_CASE("block choice: equals a sort, on small and large maps of every kind", "[block_choice]") {
    std::mt19937 random(5);
    const auto value = [&](int kind) {
        const double uniform = static_cast<double>(random()) / 4294967296.0;
        switch (kind) {
            case 0:
                return static_cast<float>(std::exp2(-20.0 * uniform));  // spread over many octaves
            case 1:
                return static_cast<float>(random() % 3);  // hardly anything but ties
            case 2:
                return random() % 50 == 0 ? 1.0f : 0.0f;  // mostly nothing
            case 3:
                return static_cast<float>(uniform - 0.5);  // also below zero
            default:
                return 0.25f;
        }
    };
    struct Size {
        std::int64_t rows, cols;
    };
    for (const Size size : {Size{1, 1}, Size{3, 5}, Size{7, 33}, Size{40, 64}, Size{70, 131}, Size{150, 150}}) {
        for (int kind = 0; kind < 5; ++kind) {
            std::vector<float> values;
            for (std::int64_t i = 0; i < size.rows * size.cols; ++i) values.push_back(value(kind));
            const BlockMap map = map_of(size.rows, size.cols, std::move(values));
            for (const double density : {0.001, 0.05, 0.3, 0.5, 0.977, 1.0}) {
                INFO(size.rows << "x" << size.cols << " kind " << kind << " density " << density);
                const BlockMask expected = sorted_choice(map, density);
                CHECK(make_mask(map, density) == expected);
                if (kind == 3) continue;  // a share of negative mass means nothing
                const HeadPlan head = plan_head(map, density);
                CHECK(head.mask == expected);
                CHECK(head.retained == Catch::Approx(retained_mass(map, expected)).epsilon(1e-6));
            }
        }
    }
}

TEST_CASE("block choice: sorted maps, where evenly spread samples see every value", "[block_choice]") {
    for (const bool falling : {false, true}) {
        std::vector<float> values(120 * 100);
        std::iota(values.begin(), values.end(), 1.0f);
        if (falling) std::reverse(values.begin(), values.end());
        const BlockMap map = map_of(120, 100, values);
        for (const double density : {0.01, 0.3, 0.99}) CHECK(make_mask(map, density) == sorted_choice(map, density));
    }
}

TEST_CASE("block choice: values that are not finite are refused wherever they stand", "[block_choice]") {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
        for (const std::size_t place : {0u, 30u, 5003u, 7199u}) {
            std::vector<float> values(90 * 80, 0.5f);
            values[place] = bad;
            EXPECT_ERROR(make_mask(map_of(90, 80, values), 0.3), "map.value must be finite");
        }
    }
    // Large ones whose sum overflows are fine.
    const std::vector<float> large(90 * 80, std::numeric_limits<float>::max());
    CHECK(make_mask(map_of(90, 80, large), 0.5).count() == 3600 + 45);
}
