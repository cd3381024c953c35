#include <catch2/catch_test_macros.hpp>
#include <random>
#include <utility>
#include <vector>

#include "expect_error.h"
#include "paro/block_mask.h"

using namespace paro;

TEST_CASE("block mask: bits, counts and padding agree with a plain array", "[block_mask]") {
    std::mt19937 random(3);
    for (const auto& [rows, cols] : {std::pair{5, 31}, {3, 32}, {7, 33}, {1, 1}, {2, 65}}) {
        BlockMask mask(rows, cols);
        std::vector<bool> plain(static_cast<std::size_t>(rows * cols));
        for (int i = 0; i < 4 * rows * cols; ++i) {
            const int at = static_cast<int>(random() % plain.size());
            plain[at] = random() % 3 != 0;
            mask.set(at / cols, at % cols, plain[at]);
        }
        std::int64_t all = 0;
        for (int row = 0; row < rows; ++row) {
            std::int64_t count = 0;
            for (int col = 0; col < cols; ++col) {
                REQUIRE(mask.get(row, col) == plain[row * cols + col]);
                // As the kernels read it.
                REQUIRE(((mask.row(row)[col / 32] >> (col % 32)) & 1u) == plain[row * cols + col]);
                count += plain[row * cols + col];
            }
            REQUIRE(mask.row_count(row) == count);
            all += count;
        }
        REQUIRE(mask.count() == all);
        REQUIRE(mask.density() == static_cast<double>(all) / (rows * cols));
        REQUIRE(mask.words_per_row() == (cols + 31) / 32);
        REQUIRE(static_cast<std::int64_t>(mask.words().size()) == rows * mask.words_per_row());
    }
}

TEST_CASE("block mask: a full mask leaves the padding bits zero", "[block_mask]") {
    for (const std::int64_t cols : {1, 31, 32, 33, 64, 70}) {
        const BlockMask mask = BlockMask::full(3, cols);
        CHECK(mask.count() == 3 * cols);
        CHECK(mask.density() == 1.0);
        for (std::int64_t row = 0; row < 3; ++row) CHECK(mask.row_count(row) == cols);
        BlockMask by_hand(3, cols);
        for (std::int64_t i = 0; i < 3 * cols; ++i) by_hand.set(i / cols, i % cols);
        CHECK(mask == by_hand);
    }
}

TEST_CASE("block mask: copies hold their words once until one of them is changed", "[block_mask]") {
    BlockMask mask(3, 40);
    mask.set(1, 33);
    const BlockMask copy = mask, second = copy;
    CHECK(copy.words().data() == mask.words().data());
    CHECK(second == mask);
    const std::uint32_t* before = copy.words().data();
    mask.set(2, 5);
    CHECK(mask.words().data() != before);
    CHECK((copy.words().data() == before && second.words().data() == before));
    CHECK((mask.count() == 2 && copy.count() == 1 && second.count() == 1));
    CHECK_FALSE(mask == copy);
    // Alone it is changed where it lies.
    const std::uint32_t* own = mask.words().data();
    mask.set(2, 5, false);
    CHECK(mask.words().data() == own);
    CHECK(mask == copy);
}

TEST_CASE("block mask: empty masks and bad arguments", "[block_mask]") {
    CHECK(BlockMask().density() == 0.0);
    CHECK(BlockMask(0, 7).count() == 0);
    CHECK(BlockMask::full(4, 0).density() == 0.0);
    EXPECT_ERROR(BlockMask(-1, 2), "rows");
    EXPECT_ERROR(BlockMask(1, -2), "cols");
    EXPECT_ERROR(BlockMask(1, std::int64_t{1} << 31), "cols");
    BlockMask mask(2, 3);
    EXPECT_ERROR(mask.set(2, 0), "row");
    EXPECT_ERROR(mask.set(0, 3), "col");
    EXPECT_ERROR(mask.set(0, -1), "col");
    EXPECT_ERROR(mask.row_count(-1), "row");
    CHECK(mask.count() == 0);
}
