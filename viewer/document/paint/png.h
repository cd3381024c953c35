// PNG files: 8-bit RGB, deflated with zlib.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "paro/paint.h"

namespace paro::viewer {

std::vector<std::uint8_t> encode_png(const Image& image);
// Throws Error naming the file when it cannot be written.
void write_png(const Image& image, const std::filesystem::path& path);
// The part inside the rectangle, cut to the image.
Image crop(const Image& image, int x, int y, int width, int height);

}  // namespace paro::viewer
