#include "files/json_reader.h"

#include <algorithm>

#include "paro/text_encoding.h"

namespace paro::detail {

namespace {

constexpr std::size_t kMaxBlanks = 65536;
constexpr std::size_t kPiece = std::size_t{1} << 20;

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

}  // namespace

std::string JsonLimitCheck::at_byte(std::size_t at) const {
    return std::string(what_) + " at byte " + std::to_string(at + 1);
}

void JsonLimitCheck::feed_string(char c, std::size_t at) {
    escaped_ = c == '\\';
    if (c == '"') in_string_ = false;
    if (at - string_start_ > limits_.string_bytes + 1) {
        fail(at_byte(string_start_), "must not hold a string beyond " + std::to_string(limits_.string_bytes) + " bytes",
             "a longer one");
    }
}

void JsonLimitCheck::feed(std::string_view piece) {
    if (fed_ == 0) {
        const std::string_view wide = wide_encoding(piece);
        require(wide.empty(), what_, "must be saved as UTF-8", wide);
    }
    for (std::size_t i = 0; i < piece.size(); ++i) {
        const char c = piece[i];
        const std::size_t at = fed_ + i;
        if (escaped_) {  // it ends no string; a NUL here is an error to the parser too
            escaped_ = false;
            continue;
        }
        if (c == '\0') fail(at_byte(at), "must not hold NUL bytes", "\\0");
        if (in_string_) {
            feed_string(c, at);
            continue;
        }
        blanks_ = is_blank(c) ? blanks_ + 1 : 0;
        if (blanks_ > kMaxBlanks) {
            fail(at_byte(at), "must not hold more than " + std::to_string(kMaxBlanks) + " blanks in a row", "more");
        }
        if (c == '"') {
            in_string_ = true;
            string_start_ = at;
        } else if (c == '{' || c == '[') {
            if (++depth_ > limits_.depth) {
                fail(at_byte(at), "must not nest deeper than " + std::to_string(limits_.depth), depth_);
            }
        } else if (c == '}' || c == ']') {
            --depth_;
        }
    }
    fed_ += piece.size();
}

void check_json_limits(std::string_view text, const JsonLimits& limits, std::string_view what) {
    require(text.size() <= limits.bytes, what, "must not exceed " + std::to_string(limits.bytes) + " bytes",
            text.size());
    JsonLimitCheck(limits, what).feed(text);
}

std::string read_json(InputFile& file, std::size_t size, const JsonLimits& limits, std::string_view what) {
    JsonLimitCheck check(limits, what);
    std::string text;
    text.reserve(size);
    while (text.size() < size) {
        const std::size_t begun = text.size(), piece = std::min(kPiece, size - begun);
        text.resize(begun + piece);
        file.read(std::span(text).subspan(begun));
        check.feed(std::string_view(text).substr(begun));
    }
    return text;
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
