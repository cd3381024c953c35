#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "expect_error.h"
#include "paro/token_layout.h"

using namespace paro;

TEST_CASE("token layout: each part is padded apart to whole blocks", "[token_layout]") {
    const TokenLayout layout{13, {3, 5, 7}, 77};
    const BlockLayout blocks = block_layout(layout, 16);
    CHECK(blocks.prefix_blocks == 1);
    CHECK(blocks.grid_blocks == 7);
    CHECK(blocks.suffix_blocks == 5);
    CHECK(blocks.padded_length() == 13 * 16);
    CHECK(blocks.first_grid_block() == 1);
    CHECK_FALSE(blocks.is_grid_block(0));
    CHECK(blocks.is_grid_block(7));
    CHECK_FALSE(blocks.is_grid_block(8));

    std::int64_t tokens = 0;
    for (std::int64_t i = 0; i < blocks.blocks(); ++i) tokens += tokens_in_block(layout, blocks, i);
    CHECK(tokens == layout.length());
    CHECK(tokens_in_block(layout, blocks, 0) == 13);
    CHECK(tokens_in_block(layout, blocks, 6) == 16);
    CHECK(tokens_in_block(layout, blocks, 7) == 9);
    CHECK(tokens_in_block(layout, blocks, 12) == 13);
    EXPECT_ERROR(tokens_in_block(layout, blocks, 13), "block index");
    EXPECT_ERROR(tokens_in_block(layout, blocks, -1), "block index");
}

TEST_CASE("token layout: pack_index holds every token once and the grid in its order", "[token_layout]") {
    for (const TokenLayout& layout : {TokenLayout{13, {3, 5, 7}, 77}, TokenLayout{0, {3, 5, 7}, 0},
                                      TokenLayout{64, {1, 8, 8}, 64}, TokenLayout{0, {1, 1, 1}, 3}}) {
        for (const AxisOrder order : kAxisOrders) {
            const BlockLayout blocks = block_layout(layout, 16);
            const std::vector<std::int32_t> index = pack_index(layout, order, 16);
            REQUIRE(static_cast<std::int64_t>(index.size()) == blocks.padded_length());
            std::vector<int> seen(static_cast<std::size_t>(layout.length()), 0);
            for (std::int64_t place = 0; place < blocks.padded_length(); ++place) {
                const bool token = place % 16 < tokens_in_block(layout, blocks, place / 16);
                REQUIRE((index[place] >= 0) == token);
                if (token) ++seen[index[place]];
            }
            for (const int count : seen) REQUIRE(count == 1);
            const std::vector<std::int32_t> grid = permutation(layout.grid, order);
            for (std::int64_t i = 0; i < layout.grid.size(); ++i) {
                REQUIRE(index[blocks.first_grid_block() * 16 + i] == layout.prefix + grid[i]);
            }
            for (std::int64_t i = 0; i < layout.prefix; ++i) REQUIRE(index[i] == i);
        }
    }
}

TEST_CASE("token layout: the grid's blocks do not depend on the text's length", "[token_layout]") {
    const Grid grid{3, 5, 7};
    const auto grid_part = [&](std::int64_t prefix) {
        const TokenLayout layout{prefix, grid, 0};
        const std::vector<std::int32_t> index = pack_index(layout, AxisOrder::WHF, 16);
        std::vector<std::int32_t> part(index.begin() + block_layout(layout, 16).first_grid_block() * 16, index.end());
        for (std::int32_t& token : part) token -= token < 0 ? 0 : static_cast<std::int32_t>(prefix);
        return part;
    };
    CHECK(grid_part(1) == grid_part(31));
    CHECK(grid_part(0) == grid_part(32));
}

TEST_CASE("token layout: bad layouts are named", "[token_layout]") {
    EXPECT_ERROR(validate(TokenLayout{-1, {1, 2, 3}, 0}), "layout.prefix");
    EXPECT_ERROR(validate(TokenLayout{0, {1, 2, 3}, -5}), "layout.suffix");
    EXPECT_ERROR(validate(TokenLayout{0, {1, 0, 3}, 0}), "grid.h");
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    EXPECT_ERROR(validate(TokenLayout{most, {1, 1, 1}, 0}), "layout.prefix");
    EXPECT_ERROR(validate(TokenLayout{0, {1, 1, 1}, most}), "layout.suffix");
    EXPECT_ERROR(validate(TokenLayout{1 << 30, {1, 1, 1}, 1 << 30}), "layout must hold");
    EXPECT_ERROR(block_layout(TokenLayout{0, {1, 2, 3}, 0}, 0), "block");
    EXPECT_ERROR(block_layout(TokenLayout{0, {1, 2, 3}, 0}, 4097), "block");
}
