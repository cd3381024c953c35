// Maps as pixels, colours, PNG files, and the words for a block.
#include <zlib.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <cstring>

#include "document/compute/blocks.h"
#include "document/paint/raster.h"
#include "expect_error.h"

using namespace paro::viewer;
using Catch::Matchers::WithinAbs;

namespace {

double distance(Rgba a, Rgba b) {
    const auto x = oklab(a), y = oklab(b);
    return std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

std::uint32_t word(const std::vector<std::uint8_t>& bytes, std::size_t at) {
    return std::uint32_t{bytes[at]} << 24 | std::uint32_t{bytes[at + 1]} << 16 | std::uint32_t{bytes[at + 2]} << 8 |
           bytes[at + 3];
}

}  // namespace

TEST_CASE("colour maps take even steps, and their lightness only rises or only falls") {
    for (const Palette palette : {Palette::dusk, Palette::grey}) {
        for (const bool light : {false, true}) {
            const Colormap& map = colormap(palette, light);
            const double mean = distance(map[0], map[255]) / 255.0;
            double previous = oklab(map[0])[0], longest = 0.0, shortest = 1e9;
            for (std::size_t i = 16; i < 256; i += 16) {
                const double lightness = oklab(map[i])[0];
                double step = 0.0;
                for (std::size_t k = i - 16; k < i; k += 4) step += distance(map[k], map[k + 4]);
                CHECK((light ? previous - lightness : lightness - previous) > 0.01);
                previous = lightness;
                longest = std::max(longest, step);
                shortest = std::min(shortest, step);
            }
            INFO("palette " << static_cast<int>(palette) << " light " << light << " mean " << mean);
            CHECK(longest < 1.25 * shortest);
        }
    }
    CHECK(order_color(0) != order_color(5));
}

TEST_CASE("a block that covers pixels is a sharp square") {
    const std::vector<float> value = {1.0f, 0.5f, 0.25f, 0.125f};
    const std::vector<std::uint32_t> entry = {0, 1, 2, 0};
    const Field field{2, 2, value, entry, 1};
    Style style;
    style.scale = {0.01f, 1.0f, true};
    style.overlay = Overlay::off;
    Image image;
    paint(field, {0, 0, 2, 2}, style, 8, 8, image);
    for (int y = 0; y < 8; ++y) {
        for (int x = 0; x < 8; ++x) CHECK(image.at(x, y) == image.at(x / 4 * 4, y / 4 * 4));
    }
    CHECK(image.at(0, 0) == colormap(Palette::dusk, false)[255]);
    CHECK(image.at(0, 0) != image.at(4, 0));
    // The view moves over the map: its right lower block alone.
    Image part;
    paint(field, {1, 1, 2, 2}, style, 4, 4, part);
    CHECK(part.at(2, 2) == image.at(7, 7));
}

TEST_CASE("the mask greys what is skipped, and a budget takes blocks in by their entry") {
    const std::vector<float> value = {1.0f, 1.0f, 1.0f, 1.0f};
    const std::vector<std::uint32_t> entry = {0, 1, 2, 0};
    Style style;
    style.scale = {0.1f, 1.0f, true};
    style.overlay = Overlay::mask;
    for (std::uint32_t budget = 1; budget <= 3; ++budget) {
        Image image;
        paint({2, 2, value, entry, budget}, {0, 0, 2, 2}, style, 2, 2, image);
        for (int i = 0; i < 4; ++i) {
            const bool in = entry[static_cast<std::size_t>(i)] < budget;
            CHECK(image.pixel[static_cast<std::size_t>(i)] == (in ? computed_color(false) : skipped_color(false)));
        }
    }
    style.overlay = Overlay::shade;
    Image shaded;
    paint({2, 2, value, entry, 1}, {0, 0, 2, 2}, style, 2, 2, shaded);
    CHECK(shaded.at(0, 0) == colormap(Palette::dusk, false)[255]);
    CHECK(distance(shaded.at(1, 0), skipped_color(false)) < distance(shaded.at(0, 0), skipped_color(false)) / 2);
}

TEST_CASE("a pixel over many blocks shows their mean, none is left out") {
    std::vector<float> value(64 * 64, 0.1f);
    value[5 * 64 + 9] = 1000.0f;  // one block that sampling could miss
    const std::vector<std::uint32_t> entry(value.size(), 0);
    Style style;
    style.scale = {0.1f, 1000.0f, true};
    for (const int side : {3, 7, 16, 31}) {
        Image image;
        paint({64, 64, value, entry, 1}, {0, 0, 64, 64}, style, side, side, image);
        int bright = 0;
        for (const Rgba& pixel : image.pixel) bright += pixel == colormap(Palette::dusk, false)[0] ? 0 : 1;
        CHECK(bright == 1);
    }
    Image outside;
    paint({64, 64, value, entry, 1}, {-64, 0, 64, 128}, style, 10, 10, outside);
    CHECK(outside.at(0, 0).a == 0);
    CHECK(outside.at(9, 0).a == 255);
}

TEST_CASE("scales are their own inverse, and values beyond them are their ends") {
    for (const bool log : {false, true}) {
        const Scale scale{0.001f, 10.0f, log};
        for (const float place : {0.0f, 0.25f, 0.5f, 1.0f})
            CHECK_THAT(scale.place(scale.value_at(place)), WithinAbs(place, 1e-5));
        CHECK(scale.place(-1.0f) == 0.0f);
        CHECK(scale.place(std::nanf("")) == 0.0f);
        CHECK(scale.place(1e9f) == 1.0f);
    }
}

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
