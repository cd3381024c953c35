// Captures as safetensors files.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>

#include "paro/capture.h"
#include "profile_samples.h"

using Catch::Matchers::ContainsSubstring;
using samples::error_of;
using samples::replaced;

namespace {

paro::CaptureTensor tensor(std::string dtype, std::vector<std::int64_t> shape, std::vector<std::uint8_t> bytes) {
    return {std::move(dtype), std::move(shape), std::move(bytes)};
}

paro::CaptureTensor rows(std::int64_t queries, std::int64_t keys) {
    std::vector<std::uint8_t> bytes;
    for (std::int64_t i = 0; i < queries * keys; ++i) {  // f16 from 0 to 1
        bytes.push_back(static_cast<std::uint8_t>(i));
        bytes.push_back(static_cast<std::uint8_t>(i % 0x3C));
    }
    return tensor("F16", {queries, keys}, bytes);
}

paro::CaptureTensor queries(const std::vector<std::uint8_t>& tokens) {
    std::vector<std::uint8_t> bytes;
    for (const std::uint8_t token : tokens) bytes.insert(bytes.end(), {token, 0, 0, 0});
    return tensor("I32", {static_cast<std::int64_t>(tokens.size())}, bytes);
}

paro::Capture sample() {
    paro::Capture capture{samples::small(), {}};
    capture.tensors["rows/block.0.0/1/0"] = rows(3, 60);
    capture.tensors["queries/block.0.0/1/0"] = queries({59, 0, 7});
    capture.tensors["rows/block.1.0/0/1"] = rows(1, 60);
    capture.tensors["queries/block.1.0/0/1"] = queries({5});
    capture.tensors["maps/block.1.0/0/1/WFH"] = tensor("U8", {1, 3}, {0, 255, 7});
    return capture;
}

std::string file(const std::string& header, const std::string& data) {
    std::string out;
    for (int i = 0; i < 8; ++i) out += static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
    return out + header + data;
}

struct Parts {
    std::string header, data;
};

Parts sample_parts(const samples::Folder& folder) {
    save_capture(sample(), folder / "sample.safetensors");
    std::ifstream stream(folder / "sample.safetensors", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    std::size_t size = 0;
    for (int i = 7; i >= 0; --i) size = size << 8 | static_cast<unsigned char>(text[static_cast<std::size_t>(i)]);
    return {text.substr(8, size), text.substr(8 + size)};
}

std::string load_error(const samples::Folder& folder, const std::string& bytes) {
    // A file cut to nothing and rewritten is flushed to the disk by some file systems, a new one is not.
    std::filesystem::remove(folder / "bad.safetensors");
    std::ofstream(folder / "bad.safetensors", std::ios::binary) << bytes;
    return error_of([&] { paro::load_capture(folder / "bad.safetensors"); });
}

}  // namespace

TEST_CASE("a capture reads back as it was written", "[capture]") {
    const samples::Folder folder;
    const paro::Capture capture = sample();
    save_capture(capture, folder / "a.safetensors");
    CHECK(paro::load_capture(folder / "a.safetensors") == capture);
    CHECK(folder.files() == 1);

    const paro::Capture empty{samples::small(), {}};
    save_capture(empty, folder / "a.safetensors");
    CHECK(paro::load_capture(folder / "a.safetensors") == empty);
}

TEST_CASE("tensors lie at multiples of their elements", "[capture]") {
    const samples::Folder folder;
    const Parts parts = sample_parts(folder);
    CHECK(parts.header.size() % 8 == 0);
    CHECK_THAT(
        parts.header,
        ContainsSubstring("\"queries/block.0.0/1/0\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[0,12]}"));
    CHECK_THAT(
        parts.header,
        ContainsSubstring("\"maps/block.1.0/0/1/WFH\":{\"dtype\":\"U8\",\"shape\":[1,3],\"data_offsets\":[496,499]}"));
    CHECK(parts.data.size() == 499);
}

TEST_CASE("malformed capture headers are refused with their place", "[capture]") {
    const samples::Folder folder;
    const Parts parts = sample_parts(folder);
    const struct {
        std::string from, to, place, rule;
    } cases[] = {
        {"paro-capture/1", "paro-capture/2", "__metadata__.format", "must be \"paro-capture/1\""},
        {"\"format\":\"paro-capture/1\",", "", "__metadata__.format", "is required"},
        {"\"format\"", "\"author\":\"x\",\"format\"", "__metadata__", "must hold only the keys format, profile"},
        {"paroattention/1", "paroattention/9", "__metadata__.profile: schema", "must be \"paroattention/1\""},
        {"[0,12]", "[0,13]", "queries/block.0.0/1/0.data_offsets", "must span 12 bytes (got 13)"},
        {"[0,12]", "[1,12]", "queries/block.0.0/1/0.data_offsets", "must start where the tensor before ends, at 0"},
        {"[0,12]", "[12,0]", "queries/block.0.0/1/0.data_offsets",
         "must lie inside the file's data (got 12 to 0 of 499)"},
        {"[12,16]", "[8,12]", "queries/block.1.0/0/1.data_offsets", "must start where the tensor before ends"},
        {"[496,499]", "[497,500]", "maps/block.1.0/0/1/WFH.data_offsets", "must lie inside the file's data"},
        {"[496,499]", "[496,9223372036854775807]", "maps/block.1.0/0/1/WFH.data_offsets", "must lie inside"},
        {"[496,499]", "[496,9223372036854775808]", "maps/block.1.0/0/1/WFH.data_offsets[1]", "must be an integer"},
        {"[496,499]", "[-1,499]", "maps/block.1.0/0/1/WFH.data_offsets[0]", "must not be negative"},
        {"[496,499]", "[496]", "maps/block.1.0/0/1/WFH.data_offsets", "must hold at least 2 items"},
        {"[1,3]", "[3]", "maps/block.1.0/0/1/WFH.shape", "must be two positive sides (got [3])"},
        {"[1,3]", "[0,3]", "maps/block.1.0/0/1/WFH.shape", "must be two positive sides"},
        {"[1,3]", "[-1,-3]", "maps/block.1.0/0/1/WFH.shape", "must be two positive sides"},
        {"[1,3]", "[513,3]", "maps/block.1.0/0/1/WFH.shape", "must be at most 512 x 512"},
        {"[3,60]", "[4611686018427387904,60]", "rows/block.0.0/1/0.shape", "must be two positive sides"},
        {"[3,60]", "[3,61]", "rows/block.0.0/1/0.shape", "one of calibration.grids"},
        {"[3,60]", "[2,60]", "queries/block.0.0/1/0.shape",
         "must have as many queries as rows/block.0.0/1/0, 2 (got 3)"},
        {"\"I32\"", "\"I64\"", "queries/block.0.0/1/0.dtype", "must be I32 (got I64)"},
        {"\"U8\"", "\"F16\"", "maps/block.1.0/0/1/WFH.dtype", "must be U8"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.0.0/1/1\"", "queries/block.0.0/1/0",
         "must come with rows/block.0.0/1/0"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.0.0/2/0\"", "rows/block.0.0/2/0", "head must be below 2 (got 2)"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.0.0/01/0\"", "rows/block.0.0/01/0", "head must be below 2"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.0.0/1/2\"", "rows/block.0.0/1/2", "group must be below 2"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.9.0/1/0\"", "rows/block.9.0/1/0", "must name a layer of the profile"},
        {"\"rows/block.0.0/1/0\"", "\"rows/../1/0\"", "rows/../1/0", "must name a layer"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.0.0/1\"", "rows/block.0.0/1", "must read rows|queries"},
        {"\"rows/block.0.0/1/0\"", "\"cols/block.0.0/1/0\"", "cols/block.0.0/1/0", "must read rows|queries"},
        {"\"rows/block.0.0/1/0\"", "\"rows/block.1.0/0/1\"", "rows/block.1.0/0/1", "must hold each key once"},
        {"/WFH\"", "/XYZ\"", "maps/block.1.0/0/1/XYZ", "order must be one of"},
        {"/WFH\"", "\"", "maps/block.1.0/0/1", "must read rows|queries"},
        {"\"shape\":[1,3],", "", "maps/block.1.0/0/1/WFH.shape", "is required"},
        {"\"shape\":[1,3],", "\"shape\":[1,3],\"x\":1,", "maps/block.1.0/0/1/WFH",
         "must hold only the keys dtype, shape"},
        {"\"shape\":[1,3],", "\"shape\":[[1,3]],", "header at byte", "must not nest deeper than 3"},
    };
    for (const auto& bad : cases) {
        INFO(bad.from << " -> " << bad.to);
        const std::string message = load_error(folder, file(replaced(parts.header, bad.from, bad.to), parts.data));
        CHECK_THAT(message, ContainsSubstring("bad.safetensors: "));
        CHECK_THAT(message, ContainsSubstring(bad.place));
        CHECK_THAT(message, ContainsSubstring(bad.rule));
    }
}

TEST_CASE("capture files of the wrong length are refused", "[capture]") {
    const samples::Folder folder;
    const Parts parts = sample_parts(folder);
    const std::string whole = file(parts.header, parts.data);
    CHECK_THAT(load_error(folder, ""), ContainsSubstring("header must start with its size in 8 bytes (got 0 bytes)"));
    CHECK_THAT(load_error(folder, whole.substr(0, 7)), ContainsSubstring("8 bytes"));
    CHECK_THAT(load_error(folder, whole.substr(0, 100)), ContainsSubstring("header must end inside the file"));
    CHECK_THAT(load_error(folder, std::string(16, '\xFF')), ContainsSubstring("header must not exceed 100 MB"));
    CHECK_THAT(load_error(folder, std::string(16, '\0')), ContainsSubstring("header must be a JSON object"));
    CHECK_THAT(load_error(folder, whole.substr(0, whole.size() - 1)),
               ContainsSubstring("must lie inside the file's data"));
    CHECK_THAT(load_error(folder, whole + "x"),
               ContainsSubstring("file must end with its last tensor (got 1 bytes more)"));
    CHECK_THAT(load_error(folder, file(" " + parts.header, parts.data)),
               ContainsSubstring("header must be a JSON object"));
    CHECK_THAT(load_error(folder, file("{}", "")), ContainsSubstring("__metadata__ is required"));
}

TEST_CASE("rows must be probabilities and queries tokens of the grid", "[capture]") {
    const samples::Folder folder;
    const auto refusal = [&](auto damage) {
        paro::Capture capture = sample();
        damage(capture.tensors);
        return error_of([&] { save_capture(capture, folder / "x.safetensors"); });
    };
    using Tensors = std::map<std::string, paro::CaptureTensor>;
    const auto f16 = [&](int value) {
        return refusal([&](Tensors& t) {
            t["rows/block.0.0/1/0"].bytes[2] = static_cast<std::uint8_t>(value);
            t["rows/block.0.0/1/0"].bytes[3] = static_cast<std::uint8_t>(value >> 8);
        });
    };
    CHECK(f16(0x3C00) == "no error");
    CHECK(f16(0x8000) == "no error");
    std::filesystem::remove(folder / "x.safetensors");
    for (const int bad : {0x3C01, 0x7C00, 0x7E00, 0xBC00, 0x8001, 0xFFFF}) {
        CHECK_THAT(f16(bad), ContainsSubstring("rows/block.0.0/1/0[1] must be a probability"));
    }
    CHECK_THAT(refusal([](Tensors& t) { t["queries/block.0.0/1/0"].bytes[4] = 60; }),
               ContainsSubstring("queries/block.0.0/1/0[1] must be a grid token below 60 (got 60)"));
    CHECK_THAT(refusal([](Tensors& t) { t["queries/block.0.0/1/0"].bytes[3] = 0xFF; }),
               ContainsSubstring("queries/block.0.0/1/0[0] must be a grid token"));
    CHECK_THAT(refusal([](Tensors& t) { t["maps/block.1.0/0/1/WFH"].bytes.pop_back(); }),
               ContainsSubstring("maps/block.1.0/0/1/WFH must hold 3 bytes (got 2)"));
    CHECK_THAT(refusal([](Tensors& t) { t["evil\n"] = t["maps/block.1.0/0/1/WFH"]; }),
               ContainsSubstring("evil\\u000a must read"));
    CHECK_THAT(refusal([](Tensors& t) { t.erase("queries/block.1.0/0/1"); }),
               ContainsSubstring("must come with queries/"));
    CHECK(folder.files() == 0);
    CHECK_THAT(error_of([&] { save_capture(sample(), folder / "none/x.safetensors"); }),
               ContainsSubstring("must be in a folder"));
    CHECK_THAT(error_of([&] { paro::load_capture(folder / "x.safetensors"); }),
               ContainsSubstring("x.safetensors must be readable"));
}

TEST_CASE("damaged captures are refused by Error alone", "[capture][fuzz]") {
    const samples::Folder folder;
    const Parts parts = sample_parts(folder);
    const std::string whole = file(parts.header, parts.data);
    int refused = 0;
    constexpr int kRounds = 2000;
    for (int round = 0; round < kRounds; ++round) {
        const auto seed = static_cast<std::uint32_t>(round);
        // Half of the damage is kept to the header, with a size that fits, so that it gets past the first check.
        const std::string damaged =
            round % 2 == 0 ? samples::mutated(whole, seed) : file(samples::mutated(parts.header, seed), parts.data);
        refused += load_error(folder, damaged) != "no error";
    }
    CHECK(refused > kRounds / 2);
}
