// The ranking must say of every density what make_mask and retained_mass say.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "expect_error.h"
#include "paro/block_rank.h"

using Catch::Matchers::WithinAbs;

namespace {

paro::BlockMap random_map(std::int64_t rows, std::int64_t cols, std::uint32_t seed, bool ties) {
    paro::BlockMap map;
    map.rows = rows;
    map.cols = cols;
    std::mt19937 random(seed);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
        const double level = static_cast<double>(random() % 1000) / 40.0;
        map.value.push_back(ties ? static_cast<float>(random() % 4) : static_cast<float>(std::exp(-level)));
    }
    return map;
}

}  // namespace

TEST_CASE("a ranking holds the mask of every density") {
    struct Case {
        std::int64_t rows, cols;
        bool ties;
    };
    const Case cases[] = {{1, 1, false}, {1, 9, true}, {9, 1, true}, {13, 17, false}, {13, 17, true}, {70, 70, false}};
    for (const Case& c : cases) {
        for (std::uint32_t seed = 0; seed < 3; ++seed) {
            const paro::BlockMap map = random_map(c.rows, c.cols, seed, c.ties);
            const paro::BlockRanking ranking = paro::rank_blocks(map);
            for (const double density : {0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0}) {
                const paro::BlockMask mask = paro::make_mask(map, density);
                INFO(c.rows << " x " << c.cols << " ties " << c.ties << " density " << density);
                CHECK(ranking.mask(density) == mask);
                CHECK(ranking.count(density) == mask.count());
                CHECK_THAT(ranking.retained(density), WithinAbs(paro::retained_mass(map, mask), 1e-12));
            }
        }
    }
}

TEST_CASE("a tile without a block among the greatest still gets its best one") {
    paro::BlockMap map;
    map.rows = 2;
    map.cols = 2;
    map.value = {4.0f, 3.0f, 1.0f, 2.0f};
    const paro::BlockRanking ranking = paro::rank_blocks(map);
    CHECK(ranking.budget(0.25) == 1);
    CHECK(ranking.count(0.25) == 2);
    CHECK_THAT(ranking.retained(0.25), WithinAbs(0.6, 1e-12));
    CHECK(ranking.count(0.75) == 3);
}

TEST_CASE("a map without mass keeps all of it, and zeros of either sign are equal") {
    paro::BlockMap map;
    map.rows = 2;
    map.cols = 3;
    map.value = {0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f};
    CHECK(paro::rank_blocks(map).mask(0.5) == paro::make_mask(map, 0.5));
    CHECK(paro::rank_blocks(map).retained(0.5) == 1.0);
}

TEST_CASE("rankings refuse what masks refuse") {
    paro::BlockMap map = random_map(3, 3, 1, false);
    const paro::BlockRanking ranking = paro::rank_blocks(map);
    EXPECT_ERROR(ranking.count(0.0), "density must be above 0");
    EXPECT_ERROR(ranking.retained(1.5), "density must be above 0");
    EXPECT_ERROR(ranking.mask(std::numeric_limits<double>::quiet_NaN()), "density must be above 0");
    map.value[4] = std::numeric_limits<float>::infinity();
    EXPECT_ERROR(paro::rank_blocks(map), "map.value must be finite");
    map.value.pop_back();
    EXPECT_ERROR(paro::rank_blocks(map), "map.value must have rows * cols");
    EXPECT_ERROR(paro::rank_blocks(paro::BlockMap{}), "map must have blocks");
}
