#include "paro/text_encoding.h"

namespace paro {

using namespace std::string_view_literals;

std::string_view wide_encoding(std::string_view bytes) {
    constexpr std::string_view kLittle16 = "UTF-16 (little-endian)", kBig16 = "UTF-16 (big-endian)",
                               kLittle32 = "UTF-32 (little-endian)", kBig32 = "UTF-32 (big-endian)";
    // The mark of UTF-32 starts with that of UTF-16.
    if (bytes.starts_with("\xFF\xFE\0\0"sv)) return kLittle32;
    if (bytes.starts_with("\0\0\xFE\xFF"sv)) return kBig32;
    if (bytes.starts_with("\xFF\xFE"sv)) return kLittle16;
    if (bytes.starts_with("\xFE\xFF"sv)) return kBig16;
    // Without a mark: where the zeros of the first characters lie. UTF-8 of JSON has none.
    const auto zero = [&](std::size_t at) { return at < bytes.size() && bytes[at] == '\0'; };
    const auto ascii = [&](std::size_t at) { return at < bytes.size() && bytes[at] > '\0'; };
    if (zero(0) && zero(1) && zero(2) && ascii(3)) return kBig32;
    if (ascii(0) && zero(1) && zero(2) && zero(3)) return kLittle32;
    if (zero(0) && ascii(1) && (bytes.size() < 4 || zero(2))) return kBig16;
    if (ascii(0) && zero(1) && (bytes.size() < 4 || zero(3))) return kLittle16;
    return {};
}

}  // namespace paro
