#include "files/capture_rules.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <unordered_map>

#include "files/text.h"
#include "paro/error.h"

namespace paro::detail {
namespace {

enum class Kind : std::uint8_t { rows, queries, maps };

struct Key {
    Kind kind = Kind::rows;
    std::string_view layer, head, group, order;
};

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> parts;
    for (std::size_t start = 0; start <= text.size() && parts.size() <= 5;) {
        const std::size_t slash = std::min(text.find('/', start), text.size());
        parts.push_back(text.substr(start, slash - start));
        start = slash + 1;
    }
    return parts;
}

Key parse_key(const Place& place, std::string_view name) {
    const std::vector<std::string_view> parts = split(name);
    const std::string_view kind = parts.front();
    const bool pair = (kind == "rows" || kind == "queries") && parts.size() == 4;
    const bool map = kind == "maps" && parts.size() == 5;
    require_at(pair || map, place,
               "must read rows|queries/<layer id>/<head>/<group> or maps/<layer id>/<head>/<group>/<order>",
               clean(name));
    if (map) return {Kind::maps, parts[1], parts[2], parts[3], parts[4]};
    return {kind == "rows" ? Kind::rows : Kind::queries, parts[1], parts[2], parts[3], {}};
}

// One spelling for each index: digits only, no leading zero.
void check_index(const Place& place, std::string_view text, std::size_t count, std::string_view what) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool number =
        error == std::errc() && end == text.data() + text.size() && (text.size() == 1 || text.front() != '0');
    require_at(number && value < count, place, std::string(what) + " must be below " + std::to_string(count),
               clean(text));
}

void check_key(const Place& place, const Key& key, const Profile& profile,
               const std::unordered_map<std::string_view, std::size_t>& layers) {
    require_at(layers.contains(key.layer), place, "must name a layer of the profile", clean(key.layer));
    check_index(place, key.head, static_cast<std::size_t>(profile.model.heads), "head");
    check_index(place, key.group, profile.timestep_groups.size(), "group");
    if (key.kind != Kind::maps) return;
    const bool known = std::ranges::any_of(kAxisOrders, [&](AxisOrder order) { return to_string(order) == key.order; });
    require_at(known, place, "order must be one of FHW, FWH, HFW, HWF, WFH, WHF", clean(key.order));
}

std::string show_shape(const std::vector<std::int64_t>& shape) {
    std::string out = "[";
    for (std::size_t i = 0; i < shape.size() && i < 8; ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return out + (shape.size() > 8 ? ", ...]" : "]");
}

void check_tensor(const Place& place, Kind kind, const CaptureTensor& tensor, const Profile& profile) {
    constexpr std::string_view kDtypes[] = {"F16", "I32", "U8"};
    const std::string_view dtype = kDtypes[static_cast<std::size_t>(kind)];
    require_at(tensor.dtype == dtype, place.key("dtype"), "must be " + std::string(dtype), clean(tensor.dtype));
    const Place shape = place.key("shape");
    const std::size_t sides = kind == Kind::queries ? 1 : 2;
    const bool fits = tensor.shape.size() == sides && checked_size(tensor.dtype, tensor.shape).has_value();
    require_at(fits, shape, sides == 1 ? "must be one positive side" : "must be two positive sides",
               show_shape(tensor.shape));
    if (kind == Kind::maps) {
        const bool small = tensor.shape[0] <= kMaxMapSide && tensor.shape[1] <= kMaxMapSide;
        require_at(small, shape, "must be at most 512 x 512", show_shape(tensor.shape));
    }
    if (kind == Kind::rows) {
        const bool known = std::ranges::any_of(profile.calibration.grids,
                                               [&](const Grid& grid) { return grid.size() == tensor.shape[1]; });
        require_at(known, shape, "must have as many keys as one of calibration.grids", show_shape(tensor.shape));
    }
}

// rows/X and queries/X belong together, one row per query.
void check_pair(const Place& place, const std::string& name, const Capture& capture) {
    const std::string partner = (name.starts_with("rows/") ? "queries" : "rows") + name.substr(name.find('/'));
    const auto found = capture.tensors.find(partner);
    require_at(found != capture.tensors.end(), place, "must come with " + clean(partner, 300), "none");
    const std::int64_t queries = capture.tensors.at(name).shape[0], others = found->second.shape[0];
    require_at(queries == others, place.key("shape"),
               "must have as many queries as " + clean(partner, 300) + ", " + std::to_string(others), queries);
}

template <typename Element>
std::vector<Element> elements(const std::vector<std::uint8_t>& bytes) {  // little endian, as in the file
    std::vector<Element> out(bytes.size() / sizeof(Element));
    for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint32_t value = 0;
        for (std::size_t b = 0; b < sizeof(Element); ++b)
            value |= std::uint32_t{bytes[i * sizeof(Element) + b]} << (8 * b);
        out[i] = static_cast<Element>(value);
    }
    return out;
}

void check_rows(const Place& place, const CaptureTensor& tensor) {
    // Bits of f16 grow with the value: from +0 to 1, or -0; everything else is negative, larger or not a number.
    constexpr std::uint16_t kOne = 0x3C00, kMinusZero = 0x8000;
    for (std::size_t i = 0; i + 1 < tensor.bytes.size(); i += 2) {
        const auto bits = static_cast<std::uint16_t>(tensor.bytes[i] | tensor.bytes[i + 1] << 8);
        if (bits > kOne && bits != kMinusZero) {
            fail(place.at(i / 2).str(), "must be a probability", "f16 bits " + std::to_string(bits));
        }
    }
}

void check_queries(const Place& place, const CaptureTensor& tensor, std::int64_t tokens) {
    const std::vector<std::int32_t> queries = elements<std::int32_t>(tensor.bytes);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        const bool inside = queries[i] >= 0 && queries[i] < tokens;
        if (!inside) fail(place.at(i).str(), "must be a grid token below " + std::to_string(tokens), queries[i]);
    }
}

}  // namespace

std::optional<std::int64_t> element_size(std::string_view dtype) {
    if (dtype == "F16") return 2;
    if (dtype == "I32") return 4;
    if (dtype == "U8") return 1;
    return std::nullopt;
}

std::optional<std::int64_t> checked_size(std::string_view dtype, const std::vector<std::int64_t>& shape) {
    std::optional<std::int64_t> size = element_size(dtype);
    for (const std::int64_t side : shape) {
        if (!size || side < 1 || side > std::numeric_limits<std::int64_t>::max() / *size) return std::nullopt;
        *size *= side;
    }
    return size;
}

void validate_layout(const Capture& capture) {
    std::unordered_map<std::string_view, std::size_t> layers;
    for (std::size_t l = 0; l < capture.profile.layers.size(); ++l) layers.emplace(capture.profile.layers[l].id, l);
    for (const auto& [name, tensor] : capture.tensors) {
        const std::string shown = clean(name, 300);
        const Place place(shown);
        const Key key = parse_key(place, name);
        check_key(place, key, capture.profile, layers);
        check_tensor(place, key.kind, tensor, capture.profile);
    }
    // Only once each tensor is sound by itself, so that a wrong one is not reported as its partner's.
    for (const auto& [name, tensor] : capture.tensors) {
        const std::string shown = clean(name, 300);
        if (!name.starts_with("maps/")) check_pair(Place(shown), name, capture);
    }
}

void validate_contents(const Capture& capture) {
    for (const auto& [name, tensor] : capture.tensors) {
        const std::string shown = clean(name, 300);
        const Place place(shown);
        const std::int64_t expected = checked_size(tensor.dtype, tensor.shape).value_or(-1);
        require_at(static_cast<std::int64_t>(tensor.bytes.size()) == expected, place,
                   "must hold " + std::to_string(expected) + " bytes", tensor.bytes.size());
        if (name.starts_with("rows/")) check_rows(place, tensor);
        if (!name.starts_with("queries/")) continue;
        const CaptureTensor& rows = capture.tensors.at("rows" + name.substr(name.find('/')));
        check_queries(place, tensor, rows.shape[1]);
    }
}

}  // namespace paro::detail
