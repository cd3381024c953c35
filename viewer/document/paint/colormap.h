// Perceptually uniform colour maps: equal steps of a value are equal distances in OKLab, and lightness only rises, so
// that they read the same for colour-blind eyes and in print.
#pragma once

#include <array>
#include <cstdint>

namespace paro::viewer {

struct Rgba {
    std::uint8_t r = 0, g = 0, b = 0, a = 255;
    friend bool operator==(const Rgba&, const Rgba&) = default;
};

enum class Palette : std::uint8_t { dusk, grey, diverging };

// 256 colours. light: for a light background, where nothing is light and much is dark. diverging: blue, neutral,
// orange; the neutral middle is that of the background.
using Colormap = std::array<Rgba, 256>;
const Colormap& colormap(Palette palette, bool light);

// One colour per axis order (by AxisOrder), told apart by colour-blind eyes (Okabe and Ito's set).
Rgba order_color(int order);

// Linear mix in sRGB values: t = 0 gives a.
Rgba mix(Rgba a, Rgba b, float t);

// OKLab of an sRGB colour (Ottosson 2020): L in [0, 1], a, b about [-0.4, 0.4].
std::array<double, 3> oklab(Rgba color);

}  // namespace paro::viewer
