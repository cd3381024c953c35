// Captures as safetensors files: 8 bytes of header size, the header as JSON, then the tensors without gaps.
#include "paro/capture.h"

#include <algorithm>
#include <array>

#include "files/capture_rules.h"
#include "files/file_io.h"
#include "files/json_reader.h"
#include "paro/error.h"

namespace paro {
namespace detail {
namespace {

constexpr std::string_view kFormat = "paro-capture/1";
constexpr std::size_t kMaxHeader = 100'000'000, kMaxTensors = std::size_t{1} << 17;
constexpr std::uint64_t kMaxFile = std::uint64_t{8} << 30;

struct Range {
    std::int64_t begin = 0, end = 0;
};

struct Header {
    std::string profile;
    std::map<std::string, CaptureTensor> tensors;
    std::map<std::string, Range> ranges;
    CaptureTensor* tensor = nullptr;  // being read
    Range* range = nullptr;
};

using Field = JsonField<Header>;
using Shape = JsonShape<Header>;

void set_offset(Header& header, JsonValue& value) {
    if (value.integer < 0) throw JsonRefusal{"must not be negative"};
    (value.index == 0 ? header.range->begin : header.range->end) = value.integer;
}

void add_tensor(Header& header, const std::string& key) {
    if (header.tensors.size() >= kMaxTensors) throw JsonRefusal{"must not list more than 131072 tensors"};
    const auto [place, added] = header.tensors.try_emplace(key);
    if (!added) throw JsonRefusal{"must hold each key once"};
    header.tensor = &place->second;
    header.range = &header.ranges[key];
}

constexpr Field kSide[] = {
    {"", JsonKind::integer, [](Header& h, JsonValue& v) { h.tensor->shape.push_back(v.integer); }}};
constexpr Shape kSides{kSide, 0, 8};
constexpr Field kOffset[] = {{"", JsonKind::integer, set_offset}};
constexpr Shape kOffsets{kOffset, 2, 2};
constexpr Field kTensorFields[] = {
    {"dtype", JsonKind::text, [](Header& h, JsonValue& v) { h.tensor->dtype = *v.text; }},
    {"shape", JsonKind::array, nullptr, &kSides},
    {"data_offsets", JsonKind::array, nullptr, &kOffsets},
};
constexpr Shape kTensor{kTensorFields};
constexpr Field kAnyTensor{"", JsonKind::object, nullptr, &kTensor};

void set_format(Header&, JsonValue& value) {
    if (*value.text != kFormat) throw JsonRefusal{"must be \"" + std::string(kFormat) + '"'};
}

constexpr Field kMetadataFields[] = {
    {"format", JsonKind::text, set_format},
    {"profile", JsonKind::text, [](Header& h, JsonValue& v) { h.profile = std::move(*v.text); }},
};
constexpr Shape kMetadata{kMetadataFields};
constexpr Field kHeaderFields[] = {{"__metadata__", JsonKind::object, nullptr, &kMetadata}};
constexpr Shape kHeader{kHeaderFields, 0, 0, nullptr, &kAnyTensor, add_tensor};

Header read_header(InputFile& file, std::int64_t& data_bytes) {
    require(file.size() >= 8, "header", "must start with its size in 8 bytes", std::to_string(file.size()) + " bytes");
    require(file.size() <= kMaxFile, "file", "must not exceed 8 GiB", file.size());
    std::array<std::uint8_t, 8> prefix{};
    file.read(prefix);
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < 8; ++i) size |= std::uint64_t{prefix[i]} << (8 * i);
    require(size <= kMaxHeader, "header", "must not exceed 100 MB", size);
    require(size <= file.size() - 8, "header", "must end inside the file", size);
    data_bytes = static_cast<std::int64_t>(file.size() - 8 - size);
    const std::string text = read_json(file, static_cast<std::size_t>(size), {kMaxHeader, kMaxHeader, 3}, "header");
    require(text.starts_with('{'), "header", "must be a JSON object", clean(text.substr(0, 8)));

    Header header;
    JsonReader<Header>(header, kHeader).read(text);
    return header;
}

// The tensors in the order of their bytes, which must follow each other without gap or overlap to the file's end.
std::vector<CaptureTensor*> file_order(Capture& capture, const std::map<std::string, Range>& ranges,
                                       std::int64_t bytes) {
    std::vector<std::pair<Range, const std::string*>> order;
    for (const auto& [key, range] : ranges) order.emplace_back(range, &key);
    std::ranges::sort(order, {}, [](const auto& entry) { return entry.first.begin; });
    std::vector<CaptureTensor*> tensors;
    std::int64_t end = 0;
    for (const auto& [range, key] : order) {
        const std::string shown = clean(*key, 300);
        const Place root(shown);
        const Place place = root.key("data_offsets");
        require_at(range.begin <= range.end && range.end <= bytes, place, "must lie inside the file's data",
                   std::to_string(range.begin) + " to " + std::to_string(range.end) + " of " + std::to_string(bytes));
        require_at(range.begin == end, place, "must start where the tensor before ends, at " + std::to_string(end),
                   range.begin);
        CaptureTensor& tensor = capture.tensors.at(*key);
        const std::int64_t expected = checked_size(tensor.dtype, tensor.shape).value_or(-1);
        require_at(range.end - range.begin == expected, place, "must span " + std::to_string(expected) + " bytes",
                   range.end - range.begin);
        end = range.end;
        tensors.push_back(&tensor);
    }
    require(end == bytes, "file", "must end with its last tensor", std::to_string(bytes - end) + " bytes more");
    return tensors;
}

Capture read_capture(const std::filesystem::path& path, const std::function<void(double)>& progress) {
    InputFile file(path);
    std::int64_t bytes = 0;
    Header header = read_header(file, bytes);
    Capture capture;
    try {
        capture.profile = parse_profile(header.profile);
    } catch (const Error& error) {
        throw Error(std::string("__metadata__.profile: ") + error.what());
    }
    capture.tensors = std::move(header.tensors);
    validate_layout(capture);
    // Nothing of a tensor is read before every size is known to fit the file.
    std::int64_t done = 0;
    for (CaptureTensor* tensor : file_order(capture, header.ranges, bytes)) {
        tensor->bytes.resize(static_cast<std::size_t>(*checked_size(tensor->dtype, tensor->shape)));
        file.read(tensor->bytes);
        done += static_cast<std::int64_t>(tensor->bytes.size());
        if (progress) progress(static_cast<double>(done) / static_cast<double>(bytes));
    }
    validate_contents(capture);
    return capture;
}

using Entry = std::pair<const std::string, CaptureTensor>;

// Wide elements first, so that each tensor starts at a multiple of its element's size.
std::vector<const Entry*> write_order(const Capture& capture) {
    std::vector<const Entry*> order;
    for (const Entry& entry : capture.tensors) order.push_back(&entry);
    std::ranges::stable_sort(order, std::ranges::greater{},
                             [](const Entry* entry) { return element_size(entry->second.dtype).value_or(0); });
    return order;
}

std::string dump_header(const Capture& capture, const std::vector<const Entry*>& order) {
    const auto quote = [](std::string_view text) { return nlohmann::json(text).dump(); };
    std::string out = "{\"__metadata__\":{\"format\":" + quote(kFormat);
    out += ",\"profile\":" + quote(dump_profile(capture.profile)) + '}';
    std::size_t offset = 0;
    for (const Entry* entry : order) {
        const CaptureTensor& tensor = entry->second;
        const std::size_t end = offset + tensor.bytes.size();
        out += ',' + quote(entry->first) + ":{\"dtype\":" + quote(tensor.dtype);
        out += ",\"shape\":" + nlohmann::json(tensor.shape).dump();
        out += ",\"data_offsets\":[" + std::to_string(offset) + ',' + std::to_string(end) + "]}";
        offset = end;
    }
    out += '}';
    out.resize((out.size() + 7) / 8 * 8, ' ');
    require(out.size() <= kMaxHeader, "header", "must not exceed 100 MB", out.size());
    require(out.size() + offset + 8 <= kMaxFile, "file", "must not exceed 8 GiB", out.size() + offset + 8);
    return out;
}

void write_capture(const Capture& capture, const std::filesystem::path& path) {
    require(capture.tensors.size() <= kMaxTensors, "tensors", "must not be more than 131072", capture.tensors.size());
    validate(capture.profile);
    validate_layout(capture);
    validate_contents(capture);
    const std::vector<const Entry*> order = write_order(capture);
    const std::string header = dump_header(capture, order);
    std::array<std::uint8_t, 8> prefix{};
    for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<std::uint8_t>(std::uint64_t{header.size()} >> (8 * i));
    AtomicFile file(path);
    file.write(prefix);
    file.write(header);
    for (const Entry* entry : order) file.write(entry->second.bytes);
    file.commit();
}

// Errors of the format name the file as those of the file system do.
template <typename Work>
auto naming_file(const std::filesystem::path& path, Work work) {
    try {
        return work();
    } catch (const Error& error) {
        const std::string name = show(path), what = error.what();
        throw Error(what.starts_with(name) ? what : name + ": " + what);
    } catch (const std::bad_alloc&) {
        fail(show(path), "must fit into memory", "too much");
    }
}

}  // namespace
}  // namespace detail

Capture load_capture(const std::filesystem::path& path, const std::function<void(double)>& progress) {
    return detail::naming_file(path, [&] { return detail::read_capture(path, progress); });
}

void save_capture(const Capture& capture, const std::filesystem::path& path) {
    detail::naming_file(path, [&] { detail::write_capture(capture, path); });
}

}  // namespace paro
