// Text from strangers: what may be shown in messages, logs and windows, and where in a document it stood.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "paro/error.h"

namespace paro::detail {

// Decodes the code point at text[at]; its length in bytes, 0 where the bytes are not UTF-8.
std::size_t decode_utf8(std::string_view text, std::size_t at, char32_t& code);

// Not a control character, a line separator or a mark that reverses the direction of writing.
bool is_printable(char32_t code);

// Fit for a message: control characters and stray bytes escaped, cut to `limit` bytes.
std::string clean(std::string_view text, std::size_t limit = 80);

// A place in a document, such as layers[3].heads[1].order. Costs nothing until it is written out; each part refers to
// the one before, which must outlive it.
class Place {
   public:
    explicit Place(std::string_view key) : key_(key) {}

    Place key(std::string_view name) const& { return Place(this, name, -1); }
    Place at(std::size_t index) const& { return Place(this, {}, static_cast<std::int64_t>(index)); }
    Place key(std::string_view) && = delete;
    Place at(std::size_t) && = delete;

    std::string str() const;

   private:
    Place(const Place* parent, std::string_view key, std::int64_t index) : parent_(parent), key_(key), index_(index) {}

    const Place* parent_ = nullptr;
    std::string_view key_;
    std::int64_t index_ = -1;
};

template <typename Value>
void require_at(bool condition, const Place& place, std::string_view rule, const Value& value) {
    if (!condition) fail(place.str(), rule, value);
}

}  // namespace paro::detail
