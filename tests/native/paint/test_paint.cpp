// Maps as pixels: colours, scales, masks over them, and the views of a head.
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "expect_error.h"
#include "paro/head_view.h"
#include "profile_samples.h"

using namespace paro;

namespace {

double to_linear(double s) { return s <= 0.04045 ? s / 12.92 : std::pow((s + 0.055) / 1.055, 2.4); }

// OKLab of an sRGB colour (Ottosson 2020).
std::array<double, 3> oklab(Rgba color) {
    const double r = to_linear(color.r / 255.0), g = to_linear(color.g / 255.0), b = to_linear(color.b / 255.0);
    const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
    const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
    const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
    return {0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
            1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
            0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s};
}

double distance(Rgba a, Rgba b) {
    const auto x = oklab(a), y = oklab(b);
    return std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
}

}  // namespace

TEST_CASE("paint: colour maps take even steps, and their lightness only rises or only falls", "[paint]") {
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

TEST_CASE("paint: a block that covers pixels is a sharp square", "[paint]") {
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

TEST_CASE("paint: the mask greys what is skipped, and a budget takes blocks in by their entry", "[paint]") {
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

TEST_CASE("paint: a pixel over many blocks shows their mean, none is left out", "[paint]") {
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

TEST_CASE("paint: scales map ratios or differences evenly, and values beyond them are their ends", "[paint]") {
    CHECK(std::abs(Scale{0.01f, 1.0f, true}.place(0.1f) - 0.5f) < 1e-6f);
    CHECK(std::abs(Scale{0.0f, 1.0f, false}.place(0.1f) - 0.1f) < 1e-6f);
    for (const bool log : {false, true}) {
        const Scale scale{0.001f, 10.0f, log};
        CHECK(scale.place(-1.0f) == 0.0f);
        CHECK(scale.place(std::nanf("")) == 0.0f);
        CHECK(scale.place(1e9f) == 1.0f);
    }
}

TEST_CASE("paint: a scale spans its values, one decade at least and four at most", "[paint]") {
    const auto scale_of = [](std::initializer_list<std::vector<float>> maps) {
        Scale scale;
        for (const std::vector<float>& map : maps) scale.widen(map);
        return scale;
    };
    CHECK(scale_of({{0.0f, 0.02f, 1.0f}}) == Scale{0.02f, 1.0f, true});
    CHECK(scale_of({{1e-6f, 1.0f}}) == Scale{1e-4f, 1.0f, true});
    CHECK(scale_of({{1.0f, 0.9f}}) == Scale{0.1f, 1.0f, true});
    // Of two maps the greatest and the smallest, in any order.
    CHECK(scale_of({{0.5f, 2.0f}, {0.01f, 1.0f}}) == Scale{0.01f, 2.0f, true});
    CHECK(scale_of({{0.01f, 1.0f}, {0.5f, 2.0f}}) == Scale{0.01f, 2.0f, true});
    const Scale none = scale_of({{0.0f, 0.0f}});
    CHECK(none.place(0.0f) == 0.0f);
}

TEST_CASE("paint: a head's views are its maps in both orders, masked at its density, on one scale", "[paint]") {
    const Grid grid{4, 6, 8};
    Profile profile = samples::profile(grid, 2, 2, 2, Bins::even(grid));
    ProfileHead& head = profile.layers[1].heads[0];
    head.order = AxisOrder::WHF;
    head.density = 0.25;
    const auto views = head_views(profile, 1, 0, 1, 16, 0.5);
    const OffsetKernel kernel = dequantise(profile.bins, head.groups[1].kernel);
    for (std::size_t i = 0; i < 2; ++i) {
        const AxisOrder order = i == 0 ? AxisOrder::FHW : AxisOrder::WHF;
        const BlockMap map = importance(kernel, grid, order, 16, 16);
        CHECK(views[i].map.order == order);
        CHECK(views[i].map.value == map.value);
        CHECK(views[i].density == 0.25);
        CHECK(views[i].retained() == retained_mass(map, make_mask(map, 0.25)));
        CHECK(views[i].scale == views[0].scale);
        // A pixel a block: skipped ones are shaded, and only they.
        const BlockMask mask = make_mask(map, 0.25);
        const Image open = views[i].picture(12, Overlay::off), masked = views[i].picture(12, Overlay::shade);
        for (int y = 0; y < 12; ++y) {
            for (int x = 0; x < 12; ++x) {
                CHECK(masked.at(x, y) == (mask.get(y, x) ? open.at(x, y) : shaded(open.at(x, y), false)));
            }
        }
    }
    // A head without a density of its own has the one that is asked for.
    head.density.reset();
    CHECK(head_views(profile, 1, 0, 1, 16, 0.5)[0].density == 0.5);
    EXPECT_ERROR(head_views(profile, 2, 0, 0, 16, 0.5), "layer must be below 2 (got 2)");
    EXPECT_ERROR(head_views(profile, 0, 2, 0, 16, 0.5), "head must be below 2 (got 2)");
    EXPECT_ERROR(head_views(profile, 0, 0, 2, 16, 0.5), "group must be below 2 (got 2)");
    EXPECT_ERROR(head_views(profile, 0, 0, 0, 0, 0.5), "block_q");
    EXPECT_ERROR(head_views(profile, 1, 0, 0, 16, 1.5), "density");
    EXPECT_ERROR(views[0].picture(0, Overlay::off), "side must be 1 to 4096");
}
