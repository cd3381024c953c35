// PNG files: 8-bit RGB, deflated with zlib.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "document/paint/colormap.h"

namespace paro::viewer {

struct Image {
    int width = 0, height = 0;
    std::vector<Rgba> pixel;  // row by row from the top

    Rgba& at(int x, int y) { return pixel[static_cast<std::size_t>(y) * width + x]; }
    const Rgba& at(int x, int y) const { return pixel[static_cast<std::size_t>(y) * width + x]; }
};

std::vector<std::uint8_t> encode_png(const Image& image);
// Throws Error naming the file when it cannot be written.
void write_png(const Image& image, const std::filesystem::path& path);
// The part inside the rectangle, cut to the image.
Image crop(const Image& image, int x, int y, int width, int height);

}  // namespace paro::viewer
