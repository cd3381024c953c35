#include "document/paint/png.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "document/files/utf8.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

using Bytes = std::vector<std::uint8_t>;

void put32(Bytes& out, std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(value >> shift));
}

void chunk(Bytes& out, const char (&name)[5], const Bytes& data) {
    put32(out, static_cast<std::uint32_t>(data.size()));
    const std::size_t begin = out.size();
    out.insert(out.end(), name, name + 4);
    out.insert(out.end(), data.begin(), data.end());
    put32(out, static_cast<std::uint32_t>(crc32(0, out.data() + begin, static_cast<uInt>(out.size() - begin))));
}

}  // namespace

Bytes encode_png(const Image& image) {
    require(image.width > 0 && image.height > 0, "image", "must have pixels",
            std::to_string(image.width) + " x " + std::to_string(image.height));
    Bytes raw;
    raw.reserve(static_cast<std::size_t>(image.height) * (static_cast<std::size_t>(image.width) * 3 + 1));
    for (int y = 0; y < image.height; ++y) {
        raw.push_back(0);  // no filter
        for (int x = 0; x < image.width; ++x) {
            const Rgba& p = image.at(x, y);
            raw.insert(raw.end(), {p.r, p.g, p.b});
        }
    }
    uLongf size = compressBound(static_cast<uLong>(raw.size()));
    Bytes packed(size);
    require(compress2(packed.data(), &size, raw.data(), static_cast<uLong>(raw.size()), 6) == Z_OK, "image",
            "must be compressible", raw.size());
    packed.resize(size);

    Bytes out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    Bytes header;
    put32(header, static_cast<std::uint32_t>(image.width));
    put32(header, static_cast<std::uint32_t>(image.height));
    header.insert(header.end(), {8, 2, 0, 0, 0});  // 8 bits, RGB
    chunk(out, "IHDR", header);
    chunk(out, "IDAT", packed);
    chunk(out, "IEND", {});
    return out;
}

void write_png(const Image& image, const std::filesystem::path& path) {
    const Bytes bytes = encode_png(image);
    errno = 0;
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (file.fail()) fail(utf8(path), "must be a place where a file can be written", std::strerror(errno));
}

Image crop(const Image& image, int x, int y, int width, int height) {
    const int left = std::clamp(x, 0, image.width), top = std::clamp(y, 0, image.height);
    const int right = std::clamp(x + width, left, image.width), bottom = std::clamp(y + height, top, image.height);
    Image out{right - left, bottom - top, {}};
    for (int row = top; row < bottom; ++row) {
        const auto* line = image.pixel.data() + static_cast<std::size_t>(row) * image.width;
        out.pixel.insert(out.pixel.end(), line + left, line + right);
    }
    return out;
}

}  // namespace paro::viewer
