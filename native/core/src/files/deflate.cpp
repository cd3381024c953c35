#include "files/deflate.h"

#include <zlib.h>

#include <limits>

#include "paro/error.h"

namespace paro::detail {

std::vector<std::uint8_t> deflate(std::span<const std::uint8_t> bytes) {
    uLongf size = compressBound(static_cast<uLong>(bytes.size()));
    std::vector<std::uint8_t> out(size);
    const int status = compress2(out.data(), &size, bytes.data(), static_cast<uLong>(bytes.size()), Z_BEST_COMPRESSION);
    require(status == Z_OK, "zlib", "must be able to deflate", status);
    out.resize(size);
    return out;
}

std::string_view inflate(std::span<const std::uint8_t> packed, std::span<std::uint8_t> out) {
    if (packed.size() > std::numeric_limits<uInt>::max() || out.size() > std::numeric_limits<uInt>::max()) {
        return "4 GB or more";
    }
    z_stream stream{};
    if (inflateInit(&stream) != Z_OK) return "zlib that does not start";
    stream.next_in = const_cast<Bytef*>(packed.data());  // zlib's older interface has no const
    stream.avail_in = static_cast<uInt>(packed.size());
    Bytef none = 0;  // zlib takes no null, which an empty span may hold
    stream.next_out = out.empty() ? &none : out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    const int status = ::inflate(&stream, Z_FINISH);
    const uInt left_in = stream.avail_in, left_out = stream.avail_out;
    inflateEnd(&stream);
    if (status == Z_STREAM_END && left_out == 0 && left_in == 0) return {};
    if (status == Z_STREAM_END && left_out != 0) return "fewer bytes";
    if (status == Z_STREAM_END) return "bytes after the zlib stream";
    if (status == Z_BUF_ERROR && left_out == 0) return "more bytes";
    if (status == Z_BUF_ERROR) return "a zlib stream that ends too early";
    return "no valid zlib stream";
}

}  // namespace paro::detail
