#include "files/text.h"

#include <cstdio>

namespace paro::detail {

std::size_t decode_utf8(std::string_view text, std::size_t at, char32_t& code) {
    const auto byte = [&](std::size_t offset) -> std::uint32_t {
        return at + offset < text.size() ? static_cast<unsigned char>(text[at + offset]) : 0u;
    };
    const std::uint32_t lead = byte(0);
    if (lead < 0x80) {
        code = lead;
        return at < text.size() ? 1 : 0;
    }
    const std::size_t length = lead >= 0xF0 && lead <= 0xF4 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    std::uint32_t value = lead & (0xFFu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0u) != 0x80u) return 0;
        value = value << 6 | (byte(i) & 0x3Fu);
    }
    // Overlong forms, surrogates and values past the last plane are not UTF-8.
    constexpr std::uint32_t kLeast[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < kLeast[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
    code = value;
    return length;
}

bool is_printable(char32_t code) {
    if (code < 0x20 || (code >= 0x7F && code <= 0x9F)) return false;
    if (code >= 0x200B && code <= 0x200F) return false;  // zero-width characters and direction marks
    if (code >= 0x2028 && code <= 0x202E) return false;  // separators and direction overrides
    if (code >= 0x2060 && code <= 0x206F) return false;  // invisible operators and isolates
    return code != 0xFEFF && code != 0x061C;
}

std::string clean(std::string_view text, std::size_t limit) {
    std::string out;
    std::size_t cut = 0;  // where the dots go if the text turns out too long
    for (std::size_t at = 0; at < text.size() && out.size() <= limit;) {
        char32_t code = 0;
        const std::size_t length = decode_utf8(text, at, code);
        if (length != 0 && is_printable(code)) {
            out += text.substr(at, length);
        } else {
            char escaped[16];
            const unsigned value = length != 0 ? static_cast<unsigned>(code) : static_cast<unsigned char>(text[at]);
            std::snprintf(escaped, sizeof escaped, length != 0 ? "\\u%04x" : "\\x%02x", value);
            out += escaped;
        }
        at += length != 0 ? length : 1;
        if (out.size() + 3 <= limit) cut = out.size();
    }
    if (out.size() > limit) out.replace(cut, out.npos, "...");
    return out;
}

std::string Place::str() const {
    std::string out = parent_ != nullptr ? parent_->str() : std::string();
    if (index_ >= 0) return out + '[' + std::to_string(index_) + ']';
    if (!out.empty() && !key_.empty()) out += '.';
    return out.append(key_);
}

}  // namespace paro::detail
