// Block maps as pixels: sharp squares when a block covers pixels, true means when a pixel covers blocks.
#pragma once

#include <cstdint>
#include <span>

#include "document/paint/colormap.h"
#include "document/paint/png.h"

namespace paro::viewer {

// The part of a map that is shown, in blocks; x along keys, y along queries.
struct View {
    double x0 = 0.0, y0 = 0.0, x1 = 1.0, y1 = 1.0;
    friend bool operator==(const View&, const View&) = default;
};

// How a value becomes a colour. low and high are values; log maps ratios evenly.
struct Scale {
    float low = 0.0f, high = 1.0f;
    bool log = true;
    friend bool operator==(const Scale&, const Scale&) = default;

    // 0 to 1.
    float place(float value) const;
    float value_at(float place) const;
};

enum class Overlay : std::uint8_t { shade, outline, mask, off };

struct Field {
    std::int64_t rows = 0, cols = 0;
    std::span<const float> value;          // rows * cols
    std::span<const std::uint32_t> entry;  // rows * cols; in the mask if entry < budget. Empty: no mask.
    std::uint32_t budget = 1;
};

struct Style {
    Scale scale;
    Overlay overlay = Overlay::shade;
    Palette palette = Palette::dusk;
    bool light = false;
    friend bool operator==(const Style&, const Style&) = default;
};

// width x height pixels of the view. Outside of the map: background (transparent).
void paint(const Field& field, const View& view, const Style& style, int width, int height, Image& out);

// The colour towards which skipped blocks are shaded, and that of computed ones where only the mask is shown.
Rgba skipped_color(bool light);
Rgba computed_color(bool light);

}  // namespace paro::viewer
