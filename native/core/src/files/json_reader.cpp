#include "files/json_reader.h"

#include "paro/text_encoding.h"

namespace paro::detail {

void check_json_limits(std::string_view text, const JsonLimits& limits, std::string_view what) {
    const auto at_byte = [&](std::size_t at) { return std::string(what) + " at byte " + std::to_string(at + 1); };
    require(text.size() <= limits.bytes, what, "must not exceed " + std::to_string(limits.bytes) + " bytes",
            text.size());
    const std::string_view wide = wide_encoding(text);
    require(wide.empty(), what, "must be saved as UTF-8", wide);
    int depth = 0;
    bool in_string = false;
    std::size_t string_start = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '\0') fail(at_byte(i), "must not hold NUL bytes", "\\0");
        if (in_string) {
            if (c == '\\') ++i;  // the escaped character ends no string; a NUL there is an error to the parser too
            if (c == '"') in_string = false;
            if (i - string_start > limits.string_bytes + 1) {
                fail(at_byte(string_start),
                     "must not hold a string beyond " + std::to_string(limits.string_bytes) + " bytes", "a longer one");
            }
        } else if (c == '"') {
            in_string = true;
            string_start = i;
        } else if (c == '{' || c == '[') {
            if (++depth > limits.depth) {
                fail(at_byte(i), "must not nest deeper than " + std::to_string(limits.depth), depth);
            }
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
}

std::string json_complaint(const char* what) {
    std::string_view text = what;
    if (const auto column = text.find(", column "); column != text.npos) {
        if (const auto colon = text.find(": ", column); colon != text.npos) text.remove_prefix(colon + 2);
    } else if (const auto bracket = text.find("] "); bracket != text.npos) {
        text.remove_prefix(bracket + 2);
    }
    // What was read last may be megabytes of a string; the byte's position says enough.
    std::string out(text.substr(0, text.find("; last read: ")));
    if (const auto expected = text.rfind("; expected "); expected != text.npos && expected > out.size()) {
        out += text.substr(expected);
    }
    return out;
}

bool is_utf8(std::string_view text) {
    char32_t code = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = decode_utf8(text, at, code);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

std::string_view describe(JsonKind kind) {
    switch (kind) {
        case JsonKind::object:
            return "must be an object";
        case JsonKind::array:
            return "must be an array";
        case JsonKind::text:
            return "must be a string";
        case JsonKind::integer:
            return "must be an integer";
        case JsonKind::number:
            return "must be a number";
        case JsonKind::number_or_null:
            return "must be a number or null";
        case JsonKind::boolean:
            return "must be true or false";
    }
    return "must be something else";
}

}  // namespace paro::detail
