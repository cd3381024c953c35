// PNG files, and the words for a block.
#include <zlib.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>

#include "document/compute/blocks.h"
#include "document/paint/png.h"
#include "expect_error.h"

using namespace paro::viewer;
using paro::Image;

namespace {

std::uint32_t word(const std::vector<std::uint8_t>& bytes, std::size_t at) {
    return std::uint32_t{bytes[at]} << 24 | std::uint32_t{bytes[at + 1]} << 16 | std::uint32_t{bytes[at + 2]} << 8 |
           bytes[at + 3];
}

}  // namespace

TEST_CASE("PNG files hold the pixels") {
    Image image{3, 2, {}};
    for (int i = 0; i < 6; ++i) image.pixel.push_back({static_cast<std::uint8_t>(i * 40), 7, 9});
    const std::vector<std::uint8_t> png = encode_png(image);
    CHECK(std::memcmp(png.data(), "\x89PNG\r\n\x1a\n", 8) == 0);
    CHECK(word(png, 16) == 3);
    CHECK(word(png, 20) == 2);
    const std::uint32_t size = word(png, 33);
    CHECK(std::memcmp(png.data() + 37, "IDAT", 4) == 0);
    CHECK(word(png, 41 + size) == crc32(0, png.data() + 37, size + 4));
    std::vector<std::uint8_t> raw(2 * (1 + 3 * 3));
    uLongf got = raw.size();
    REQUIRE(uncompress(raw.data(), &got, png.data() + 41, size) == Z_OK);
    CHECK(raw[1 + 3] == 40);
    CHECK(raw[10 + 1] == 120);
    EXPECT_ERROR(encode_png(Image{}), "image must have pixels");
    EXPECT_ERROR(write_png(image, "/no such folder/x.png"), "/no such folder/x.png");
    const Image part = crop(image, 1, 1, 100, 100);
    CHECK(part.width == 2);
    CHECK(part.at(0, 0).r == 160);
}

TEST_CASE("a block's tokens are told as ranges of the grid") {
    const paro::Grid grid{2, 4, 8};
    CHECK(to_string(token_range(grid, paro::AxisOrder::FHW, 16, 1)) == "f 0, h 2-3, w 0-7");
    CHECK(to_string(token_range(grid, paro::AxisOrder::WHF, 16, 0)) == "f 0-1, h 0-3, w 0-1");
    CHECK(token_range(grid, paro::AxisOrder::FHW, 60, 1).tokens == 4);
    // Every order's blocks hold every token once.
    for (const paro::AxisOrder order : paro::kAxisOrders) {
        std::int64_t tokens = 0;
        for (std::int64_t i = 0; i < 6; ++i) tokens += token_range(grid, order, 11, i).tokens;
        CHECK(tokens == grid.size());
        const auto range = token_range(grid, order, 64, 0);
        CHECK(range.last == std::array<std::int32_t, 3>{1, 3, 7});
    }
}

TEST_CASE("halves and numbers") {
    CHECK(half_to_float(0x3C00) == 1.0f);
    CHECK(half_to_float(0x3800) == 0.5f);
    CHECK(half_to_float(0x0001) == std::ldexp(1.0f, -24));
    CHECK(half_to_float(0x8000) == 0.0f);
    CHECK(half_to_float(0xC000) == -2.0f);
    CHECK(std::isinf(half_to_float(0x7C00)));
    CHECK(short_number(0.0) == "0");
    CHECK(short_number(0.000123) == "1.2e-04");
    CHECK(short_number(12.345) == "12.3");
}
