// JSON read straight into values after a table of shapes: no tree is ever built, and nothing recurses, so what a
// hostile document costs is bounded by the tables. Every refusal names the place.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/file_io.h"
#include "files/text.h"

namespace paro::detail {

struct JsonLimits {
    std::size_t bytes = 0, string_bytes = 0;
    int depth = 0;
};

// One pass over the text before it is parsed: encoding, depth, length of strings, blanks in a row (the parser keeps
// them all), and a NUL byte, which the parser takes for the end. A mark before UTF-8 is let through: the parser skips
// it. Throws Error with the byte's position.
class JsonLimitCheck {
   public:
    JsonLimitCheck(const JsonLimits& limits, std::string_view what) : limits_(limits), what_(what) {}
    // The text piece by piece; the first one has 4 bytes at least, or is all there is.
    void feed(std::string_view piece);

   private:
    std::string at_byte(std::size_t at) const;
    void feed_string(char c, std::size_t at);

    JsonLimits limits_;
    std::string_view what_;
    std::size_t fed_ = 0, string_start_ = 0, blanks_ = 0;
    int depth_ = 0;
    bool in_string_ = false, escaped_ = false;
};

// The size, and the same of a whole text.
void check_json_limits(std::string_view text, const JsonLimits& limits, std::string_view what);

// The next `size` bytes of a file, checked as they come: what breaks a limit early is not read to its end.
std::string read_json(InputFile& file, std::size_t size, const JsonLimits& limits, std::string_view what);

// "syntax error while parsing value - unexpected ..." without the parser's own bookkeeping.
std::string json_complaint(const char* what);

bool is_utf8(std::string_view text);

enum class JsonKind : std::uint8_t { object, array, text, integer, number, number_or_null, boolean };
std::string_view describe(JsonKind kind);

struct JsonValue {
    std::string* text = nullptr;
    std::int64_t integer = 0;
    double number = 0.0;
    bool boolean = false, null = false;
    std::size_t index = 0;  // in an array
};

// Thrown by a setter or at an opening; the reader adds the place and the value.
struct JsonRefusal {
    std::string rule;
};

template <typename Target>
struct JsonShape;

template <typename Target>
struct JsonField {
    std::string_view key;
    JsonKind kind;
    void (*set)(Target&, JsonValue&) = nullptr;  // scalars
    const JsonShape<Target>* child = nullptr;    // objects and arrays
};

// An object: every field is required, and no other is allowed unless `other` takes it.
// An array: the first field describes the items.
template <typename Target>
struct JsonShape {
    std::span<const JsonField<Target>> fields;
    std::size_t min_items = 0, max_items = 0;
    void (*open)(Target&) = nullptr;
    const JsonField<Target>* other = nullptr;
    void (*other_key)(Target&, const std::string& key) = nullptr;
};

template <typename Target>
class JsonReader {
   public:
    using Field = JsonField<Target>;
    using Shape = JsonShape<Target>;

    JsonReader(Target& target, const Shape& root) : target_(target), root_{{}, JsonKind::object, nullptr, &root} {}

    void read(std::string_view text) { nlohmann::json::sax_parse(text.begin(), text.end(), this); }

    bool null() {
        JsonValue value;
        value.null = true;
        return scalar(value, JsonKind::number_or_null, "null");
    }
    bool boolean(bool flag) {
        JsonValue value;
        value.boolean = flag;
        return scalar(value, JsonKind::boolean, flag ? "true" : "false");
    }
    bool number_integer(std::int64_t integer) {
        JsonValue value;
        value.integer = integer;
        value.number = static_cast<double>(integer);
        return scalar(value, JsonKind::integer, std::to_string(integer));
    }
    bool number_unsigned(std::uint64_t integer) {
        if (integer <= static_cast<std::uint64_t>(INT64_MAX)) return number_integer(static_cast<std::int64_t>(integer));
        return number_float(static_cast<double>(integer), std::to_string(integer));
    }
    bool number_float(double number, const std::string& text) {
        JsonValue value;
        value.number = number;
        return scalar(value, JsonKind::number, text);
    }
    bool string(std::string& text) {
        JsonValue value;
        value.text = &text;
        return scalar(value, JsonKind::text, text);
    }
    bool binary(std::vector<std::uint8_t>&) { return false; }  // no part of JSON text

    bool start_object(std::size_t) { return open(JsonKind::object, "an object"); }
    bool start_array(std::size_t) { return open(JsonKind::array, "an array"); }
    bool key(std::string& name);
    bool end_object();
    bool end_array();

    bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) {
        if (!frames_.empty() && frames_.back().array) ++frames_.back().index;  // the item that could not be read
        if (error.id == 406) fail(place(), "must be a finite number", clean(token));
        // The token ends where reading failed: bytes of Latin-1 and the like are its last ones.
        const std::string_view rule = is_utf8(token) ? "must be well-formed" : "must be well-formed, saved as UTF-8";
        fail("JSON at byte " + std::to_string(position) + " (" + place() + ")", rule,
             clean(json_complaint(error.what()), 160));
    }

   private:
    struct Frame {
        const Shape* shape = nullptr;
        bool array = false;
        std::uint32_t seen = 0;
        std::int64_t index = -1;
        const Field* field = nullptr;  // the key that was read last
        std::string other;             // its name where the shape takes any
    };

    std::string place() const;
    const Field& begin_value();
    bool open(JsonKind kind, std::string_view got);
    bool scalar(JsonValue& value, JsonKind kind, std::string_view shown);

    Target& target_;
    Field root_;
    std::vector<Frame> frames_;
};

template <typename Target>
std::string JsonReader<Target>::place() const {
    std::string out;
    for (const Frame& frame : frames_) {
        if (frame.array && frame.index >= 0) out += '[' + std::to_string(frame.index) + ']';
        if (frame.array || frame.field == nullptr) continue;
        if (!out.empty()) out += '.';
        out += frame.other.empty() ? std::string(frame.field->key) : clean(frame.other);
    }
    return out.empty() ? "the document" : out;
}

// The field that the value about to come fills.
template <typename Target>
const JsonField<Target>& JsonReader<Target>::begin_value() {
    if (frames_.empty()) return root_;
    Frame& frame = frames_.back();
    if (!frame.array) return *frame.field;
    if (static_cast<std::size_t>(frame.index + 1) >= frame.shape->max_items) {
        frame.index = -1;
        fail(place(), "must not be longer than " + std::to_string(frame.shape->max_items), "more items");
    }
    ++frame.index;
    return frame.shape->fields.front();
}

template <typename Target>
bool JsonReader<Target>::open(JsonKind kind, std::string_view got) {
    const Field& field = begin_value();
    if (field.kind != kind) fail(place(), describe(field.kind), got);
    Frame frame;
    frame.shape = field.child;
    frame.array = kind == JsonKind::array;
    frames_.push_back(std::move(frame));
    if (field.child->open == nullptr) return true;
    try {
        field.child->open(target_);
    } catch (const JsonRefusal& refusal) {
        fail(place(), refusal.rule, got);
    }
    return true;
}

template <typename Target>
bool JsonReader<Target>::scalar(JsonValue& value, JsonKind kind, std::string_view shown) {
    const Field& field = begin_value();
    const bool number = field.kind == JsonKind::number || field.kind == JsonKind::number_or_null;
    const bool fits = field.kind == kind || (number && (kind == JsonKind::integer || kind == JsonKind::number));
    if (!fits) fail(place(), describe(field.kind), clean(shown));
    if (!frames_.empty() && frames_.back().array) value.index = static_cast<std::size_t>(frames_.back().index);
    try {
        field.set(target_, value);
    } catch (const JsonRefusal& refusal) {
        fail(place(), refusal.rule, clean(shown));
    }
    return true;
}

template <typename Target>
bool JsonReader<Target>::key(std::string& name) {
    Frame& frame = frames_.back();
    frame.field = nullptr;
    frame.other.clear();
    const auto& fields = frame.shape->fields;
    for (std::size_t i = 0; i < fields.size(); ++i) {
        if (fields[i].key != name) continue;
        if (frame.seen >> i & 1u)
            fail(place(), "must hold each key once", '"' + std::string(fields[i].key) + "\" twice");
        frame.seen |= 1u << i;
        frame.field = &fields[i];
        return true;
    }
    if (frame.shape->other == nullptr) {
        std::string known;
        for (const Field& field : fields) known += (known.empty() ? "" : ", ") + std::string(field.key);
        fail(place(), "must hold only the keys " + known, '"' + clean(name) + '"');
    }
    try {
        frame.shape->other_key(target_, name);
    } catch (const JsonRefusal& refusal) {
        fail(place(), refusal.rule, '"' + clean(name) + '"');
    }
    frame.field = frame.shape->other;
    frame.other = name;
    return true;
}

template <typename Target>
bool JsonReader<Target>::end_object() {
    Frame& frame = frames_.back();
    for (std::size_t i = 0; i < frame.shape->fields.size(); ++i) {
        if (frame.seen >> i & 1u) continue;
        frame.field = &frame.shape->fields[i];
        frame.other.clear();
        fail(place(), "is required", "nothing");
    }
    frames_.pop_back();
    return true;
}

template <typename Target>
bool JsonReader<Target>::end_array() {
    Frame& frame = frames_.back();
    const auto items = static_cast<std::size_t>(frame.index + 1);
    if (items < frame.shape->min_items) {
        frame.index = -1;
        const std::string least = std::to_string(frame.shape->min_items);
        fail(place(), "must hold at least " + least + (least == "1" ? " item" : " items"), items);
    }
    frames_.pop_back();
    return true;
}

}  // namespace paro::detail
