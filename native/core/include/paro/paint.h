// Block maps as pixels: colours, scales, and what a skipped block looks like. The viewer, PARO Inspect and the demo's
// report draw by this, so that a head looks the same everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "paro/block_rank.h"

namespace paro {

struct Rgba {
    std::uint8_t r = 0, g = 0, b = 0, a = 255;
    friend bool operator==(const Rgba&, const Rgba&) = default;
};

struct Image {
    int width = 0, height = 0;
    std::vector<Rgba> pixel;  // row by row from the top

    Rgba& at(int x, int y) { return pixel[static_cast<std::size_t>(y) * width + x]; }
    const Rgba& at(int x, int y) const { return pixel[static_cast<std::size_t>(y) * width + x]; }
};

// dusk: coloured; grey: for print.
enum class Palette : std::uint8_t { dusk, grey };

// 256 colours, perceptually uniform: equal steps of a value are equal distances in OKLab, and lightness only rises, so
// that they read the same for colour-blind eyes and in print. light: for a light background, where nothing is light and
// much is dark.
using Colormap = std::array<Rgba, 256>;
const Colormap& colormap(Palette palette, bool light);

// One colour per axis order (by AxisOrder), told apart by colour-blind eyes (Okabe and Ito's set).
Rgba order_color(int order);
// Linear mix in sRGB values: t = 0 gives a.
Rgba mix(Rgba a, Rgba b, float t);
// The colour towards which skipped blocks are shaded, and that of computed ones where only the mask is shown.
Rgba skipped_color(bool light);
Rgba computed_color(bool light);
// A skipped block's colour, where it would have `color` if it were computed; `share` of it is skipped.
Rgba shaded(Rgba color, bool light, float share = 1.0f);

// How a value becomes a place among a map's colours. low and high are values; log maps ratios evenly.
struct Scale {
    float low = 0.0f, high = 0.0f;
    bool log = true;
    friend bool operator==(const Scale&, const Scale&) = default;

    // 0 to 1.
    float place(float value) const;
    // So that it holds these values too, from the smallest positive one on: at least one decade, since an even map has
    // nothing to show, and at most four, since an eye tells no more apart. Maps that are compared share a scale.
    void widen(std::span<const float> values);
};

// What is drawn over a map of its mask: skipped blocks shaded, a line around computed ones, the mask alone, nothing.
enum class Overlay : std::uint8_t { shade, outline, mask, off };

struct Style {
    Scale scale;
    Overlay overlay = Overlay::shade;
    Palette palette = Palette::dusk;
    bool light = false;
    friend bool operator==(const Style&, const Style&) = default;
};

// A map with its mask.
struct Field {
    std::int64_t rows = 0, cols = 0;
    std::span<const float> value;          // rows * cols
    std::span<const std::uint32_t> entry;  // rows * cols; in the mask if entry < budget. Empty: no mask.
    std::uint32_t budget = 1;
};

// The map with its mask at a density. Neither is copied: both must outlive the field.
Field masked(const BlockMap& map, const BlockRanking& ranking, double density);

// The part of a map that is shown, in blocks; x along keys, y along queries.
struct View {
    double x0 = 0.0, y0 = 0.0, x1 = 1.0, y1 = 1.0;
    friend bool operator==(const View&, const View&) = default;
};

// width x height pixels of the view: sharp squares where a block covers pixels, true means where a pixel covers blocks.
// Outside of the map: transparent.
void paint(const Field& field, const View& view, const Style& style, int width, int height, Image& out);

}  // namespace paro
