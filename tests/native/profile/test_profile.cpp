// Profiles as JSON: what is written reads back, and everything malformed is refused with its place.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "profile_samples.h"

using Catch::Matchers::ContainsSubstring;
using paro::parse_profile;
using samples::error_of;
using samples::replaced;

namespace {

struct Case {
    std::string from, to;  // in the sample's JSON
    std::string place, rule;
};

void check_refused(const std::string& json, const std::string& place, const std::string& rule) {
    const std::string message = error_of([&] { parse_profile(json); });
    CHECK_THAT(message, ContainsSubstring(place));
    CHECK_THAT(message, ContainsSubstring(rule));
    CHECK(message.size() < 500);
    CHECK(std::ranges::none_of(message, [](char c) { return c >= 0 && c < ' '; }));
}

void check_cases(const std::vector<Case>& cases) {
    const std::string json = dump_profile(samples::small());
    for (const Case& bad : cases) {
        INFO(bad.from << " -> " << bad.to.substr(0, 100));
        check_refused(replaced(json, bad.from, bad.to), bad.place, bad.rule);
    }
}

}  // namespace

TEST_CASE("a profile reads back as it was written", "[profile]") {
    for (const std::size_t groups : {1u, 2u}) {
        const paro::Grid grid{3, 4, 5};
        for (const paro::Bins& bins : {paro::Bins::even(grid), paro::Bins::signed_offsets(grid)}) {
            const paro::Profile profile = samples::profile(grid, 3, 2, groups, bins);
            const std::string json = dump_profile(profile);
            const paro::Profile read = parse_profile(json);
            CHECK(read == profile);
            CHECK(dump_profile(read) == json);
        }
    }
}

TEST_CASE("keys may come in any order, with any blanks", "[profile]") {
    const paro::Profile profile = samples::small();
    std::string json = dump_profile(profile);
    // `layers`, with its kernels, before `bins`, which says how large they are.
    const std::size_t bins = json.find("\"bins\""), defaults = json.find("\"defaults\""),
                      layers = json.find("\"layers\": [");
    const std::string moved = json.substr(bins, defaults - bins);
    json.insert(json.rfind("\n}"), ",\t" + moved.substr(0, moved.rfind(',')) + "  ");
    json.erase(bins, defaults - bins);
    CHECK(layers != std::string::npos);
    CHECK(parse_profile(json) == profile);
}

TEST_CASE("text of other alphabets and extreme numbers read back", "[profile]") {
    paro::Profile profile = samples::small();
    profile.model.family = "Wan 2.1 \"größe\" \\ 视频 \U0001F3AC";
    profile.model.patches = std::string(200, 'x');
    profile.calibration.grids = {{1, 1, 2147483647}, {21, 45, 80}};
    profile.calibration.steps = 2147483647;
    profile.timestep_groups = {{1e9, 0.1 + 0.2}, {5e-324, 0.0}};
    profile.defaults = {0.05, "bf16", false};
    profile.layers[0].id = "double_block_A.0017.3";
    profile.layers[0].heads[0].density = 1.0;
    profile.layers[0].heads[0].groups[0].kernel.peak = 1e-42f;
    profile.layers[0].heads[0].groups[0].kernel.code.assign(profile.layers[0].heads[0].groups[0].kernel.code.size(), 0);
    profile.layers[0].heads[0].groups[0].mass = {0.0, 1.0 / 3.0, 0.1 + 0.2, 1.0};
    CHECK(parse_profile(dump_profile(profile)) == profile);
}

TEST_CASE("unknown, missing and duplicate keys are refused", "[profile]") {
    check_cases({
        {"\"model\"", "\"modell\"", "the document", "must hold only the keys schema, model"},
        {"\"model\"", "\"evil\\u0007\\n\"", "the document", "got \"evil\\u0007\\u000a\""},
        {"\"tail\": true", "\"tail\": true, \"tial\": true", "defaults", "got \"tial\""},
        {"\"tail\": true", "\"tail\": true, \"tail\": true", "defaults",
         "must hold each key once (got \"tail\" twice)"},
        {"\"tail\": true", "\"t\\u0061il\": true, \"tail\": true", "defaults", "must hold each key once"},
        {", \"tail\": true", "", "defaults.tail", "is required"},
        {"\"0.2\"", "\"0.20\"", "layers[0].heads[0].groups[0].mass", "must hold only the keys 0.1, 0.2, 0.3, 0.5"},
        {"\"locked\": true, ", "", "layers[0].heads[1].locked", "is required"},
        {"\"order\": \"FWH\"", "\"order\": \"FWH\", \"order\": \"FWH\"", "layers[0].heads[1]", "each key once"},
        {"\"id\": \"block.1.0\", ", "", "layers[1].id", "is required"},
        {"{\n\"schema\": \"paroattention/1\",\n", "{", "schema", "is required"},
        {"paroattention/1", "paroattention/2", "schema",
         "must be \"paroattention/1\", the one schema that this version reads: make the profile anew with "
         "PARO Calibrate, or get one of that schema (got paroattention/2)"},
    });
    check_refused("{}", "schema", "is required");
}

TEST_CASE("wrong types are refused", "[profile]") {
    check_cases({
        {"\"layers\": 2", "\"layers\": 2.5", "model.layers", "must be an integer (got 2.5)"},
        {"\"layers\": 2", "\"layers\": 2.0", "model.layers", "must be an integer"},
        {"\"layers\": 2", "\"layers\": \"2\"", "model.layers", "must be an integer"},
        {"\"layers\": 2", "\"layers\": true", "model.layers", "must be an integer"},
        {"\"layers\": 2", "\"layers\": null", "model.layers", "must be an integer (got null)"},
        {"\"wan21\"", "21", "model.family", "must be a string"},
        {"\"wan21\"", "[\"wan21\"]", "model.family", "must be a string (got an array)"},
        {"[[3, 4, 5]]", "[3, 4, 5]", "calibration.grids[0]", "must be an array"},
        {"[[3, 4, 5]]", "{\"F\": 3}", "calibration.grids", "must be an array (got an object)"},
        {"\"tail\": true", "\"tail\": 1", "defaults.tail", "must be true or false"},
        {"\"density\": 0.3", "\"density\": null", "defaults.density", "must be a number (got null)"},
        {"\"density\": null", "\"density\": \"0.3\"", "layers[0].heads[0].density", "must be a number or null"},
        {"\"kernel\": \"", "\"kernel\": null, \"x\": \"", "groups[0].kernel", "must be a string (got null)"},
    });
    check_refused("[]", "the document", "must be an object (got an array)");
    check_refused("null", "the document", "must be an object");
    check_refused("\"paroattention/1\"", "the document", "must be an object");
}

TEST_CASE("wrong sizes are refused", "[profile]") {
    check_cases({
        {"\"layers\": 2", "\"layers\": 3", "layers", "must hold as many layers as model.layers says (3) (got 2)"},
        {"\"heads\": 2", "\"heads\": 1", "layers[0].heads[1]", "must not be there: model.heads says 1"},
        {"\"heads\": 2", "\"heads\": 2000000000", "model.heads", "must be from 1 to 4096"},
        {", {\"sigma_max\": 500.25, \"sigma_min\": 0.0}", "", "layers[0].heads[0].groups",
         "timestep_groups (1) (got 2)"},
        {"{\"sigma_max\": 500.25", "{\"sigma_max\": 400.0, \"sigma_min\": 300.0}, {\"sigma_max\": 300.0",
         "timestep_groups", "must not be longer than 2"},
        {"block.1.0", "block.0.0", "layers[1].id", "must not occur twice (got block.0.0)"},
        {"[0, 1, 2]", "[0, 1]", "layers[0].heads[0].groups[0].kernel", "deflated by zlib (got more bytes)"},
        {"[0, 1, 2]", "[0, 1, 2, 3]", "layers[0].heads[0].groups[0].kernel", "deflated by zlib (got fewer bytes)"},
        {"[0, 1, 2]", "[0, 2, 1]", "bins.F", "increasing"},
        {"[0, 1, 2]", "[]", "bins.F", "must hold at least 1 item"},
        {"[0, 1, 2]", "[0, 1, 2000000]", "bins.F", "2^20"},
        {"[[3, 4, 5]]", "[]", "calibration.grids", "must hold at least 1 item"},
        {"[3, 4, 5]", "[3, 4]", "calibration.grids[0]", "must hold at least 3 items"},
        {"[3, 4, 5]", "[3, 4, 5, 6]", "calibration.grids[0]", "must not be longer than 3"},
        {"[3, 4, 5]", "[3, 4, 0]", "calibration.grids[0]", "must be at least 1"},
        {"[3, 4, 5]", "[30000, 30000, 5]", "calibration.grids[0]", "2^31"},
    });
}

TEST_CASE("values outside their range are refused", "[profile]") {
    check_cases({
        {"\"steps\": 20", "\"steps\": -1", "calibration.steps", "must be from 0 to 2147483647 (got -1)"},
        {"\"steps\": 20", "\"steps\": 2147483648", "calibration.steps", "must be from -2^31 to 2^31 - 1"},
        {"\"steps\": 20", "\"steps\": 99999999999999999999", "calibration.steps", "must be an integer"},
        {"\"layers\": 2", "\"layers\": 0", "model.layers", "must be from 1"},
        {"\"head_dim\": 128", "\"head_dim\": -128", "model.head_dim", "must be from 1"},
        {"\"density\": 0.3", "\"density\": 0.04", "defaults.density", "must be from 0.05 to 1 (got 0.04)"},
        {"\"density\": 0.3", "\"density\": 1e999", "defaults.density", "must be a finite number (got 1e999)"},
        {"\"density\": 0.3", "\"density\": NaN", "defaults.density", "must be well-formed"},
        {"\"density\": null", "\"density\": 1.01", "layers[0].heads[0].density", "must be from 0.05 to 1"},
        {"int8", "int2", "defaults.precision", "must be int8, int4 or bf16 (got int2)"},
        {"\"order\": \"FWH\"", "\"order\": \"fwh\"", "layers[0].heads[1].order", "must be one of FHW"},
        {"\"0.1\": ", "\"0.1\": -", "layers[0].heads[0].groups[0].mass.0.1", "must be from 0 to 1"},
        {"\"0.5\": 0.", "\"0.5\": 7.", "layers[0].heads[0].groups[0].mass.0.5", "must be from 0 to 1"},
        {"\"peak\": ", "\"peak\": -", "layers[0].heads[0].groups[0].peak", "must be a probability"},
        {"\"peak\": 0", "\"peak\": 3", "layers[0].heads[0].groups[0].peak", "must be a probability"},
        {"\"peak\": ", "\"peak\": 1e300, \"x\": ", "layers[0].heads[0].groups[0].peak", "must be a probability"},
        {"\"sigma_max\": 1000.0", "\"sigma_max\": 1e10", "timestep_groups[0].sigma_max", "must be at most 1e9"},
        {"\"sigma_max\": 1000.0", "\"sigma_max\": 500.25", "timestep_groups[0].sigma_min", "below sigma_max"},
        {"{\"sigma_max\": 500.25", "{\"sigma_max\": 501", "timestep_groups[1].sigma_max", "sigma_min before"},
        {"\"sigma_min\": 0.0", "\"sigma_min\": -1", "timestep_groups[1].sigma_min", "must be at least 0"},
    });
}

TEST_CASE("unfit text is refused and shown harmlessly", "[profile]") {
    check_cases({
        {"wan21", "", "model.family", "must not be empty"},
        {"wan21", "a\\u001b[31mb", "model.family", "printable characters only (got a\\u001b[31mb)"},
        {"wan21", "a\\u202eb", "model.family", "printable characters only (got a\\u202eb)"},
        {"wan21",
         "a\xC2\x85"
         "b",
         "model.family", "printable characters only (got a\\u0085b)"},
        {"wan21", std::string(201, 'x'), "model.family", "must not be longer than 200 characters (got 201)"},
        {"euler", "a\\nb", "calibration.sampler", "printable characters only"},
        {"2026-09-30", "\\u0000", "calibration.date", "printable characters only (got \\u0000)"},
        {"0.1.0", "\\u007f", "calibration.version", "printable characters only"},
        {"0f19", "0F19", "model.fingerprint", "must be 64 lower-case hex digits"},
        {"0f19", "0f1", "model.fingerprint", "must be 64 lower-case hex digits"},
        {"\"patches\": \"", "\"patches\": \"\\t", "model.patches", "printable characters only"},
        {"block.0.0", "block.0", "layers[0].id",
         "must read block_type.block_index.occurrence, such as double.0.0 (got block.0)"},
        {"block.0.0", "block.0.0.0", "layers[0].id", "must read"},
        {"block.0.0", "../0.0", "layers[0].id", "must read"},
        {"block.0.0", "block.-1.0", "layers[0].id", "must read"},
        {"block.0.0", "b\\u006cock.0.\\u0660", "layers[0].id", "must read"},
        {"wan21", "a\\ud800b", "model.family", "must be well-formed"},
        {"wan21",
         "a\xFF"
         "b",
         "model.family", "must be well-formed, saved as UTF-8"},
        {"wan21",
         "a\xC0\x80"
         "b",
         "model.family", "must be well-formed, saved as UTF-8"},
        {"wan21", "\xE9t\xE9", "model.family", "must be well-formed, saved as UTF-8"},  // Latin-1
        {"wan21", "a\nb", "model.family", "must be well-formed"},
        {"wan21", std::string("a\0b", 3), "at byte", "must not hold NUL bytes"},
    });
}

namespace {

// Every byte as a character of `width` bytes, as editors that save UTF-16 or UTF-32 write it.
std::string widened(std::string_view text, std::size_t width, bool big, bool mark) {
    const auto put = [&](std::string& out, std::uint32_t code) {
        for (std::size_t i = 0; i < width; ++i) {
            out += static_cast<char>(code >> (8 * (big ? width - 1 - i : i)) & 0xFFu);
        }
    };
    std::string out;
    if (mark) put(out, 0xFEFF);
    for (const char c : text) put(out, static_cast<unsigned char>(c));
    return out;
}

}  // namespace

TEST_CASE("a profile that an editor saved in another encoding says what to do", "[profile]") {
    const std::string json = dump_profile(samples::small());
    for (const bool mark : {true, false}) {
        for (const bool big : {true, false}) {
            const std::string order = big ? "big" : "little";
            check_refused(widened(json, 2, big, mark), "profile", "must be saved as UTF-8 (got UTF-16 (" + order);
            check_refused(widened(json, 4, big, mark), "profile", "must be saved as UTF-8 (got UTF-32 (" + order);
            check_refused(widened("{}", 2, big, mark), "profile", "must be saved as UTF-8 (got UTF-16 (" + order);
        }
    }
    // The mark that Notepad writes before UTF-8 changes nothing.
    CHECK(paro::parse_profile("\xEF\xBB\xBF" + json) == samples::small());
}

TEST_CASE("malformed JSON is refused at its byte", "[profile]") {
    const std::string json = dump_profile(samples::small());
    check_refused("", "JSON at byte", "must be well-formed");
    check_refused(" \n", "JSON at byte", "must be well-formed");
    check_refused("\xEF\xBB\xBF\xEF\xBB\xBF" + json, "JSON at byte 4", "must be well-formed");
    check_refused("\x89PNG\r\n" + json, "JSON at byte 1", "must be well-formed, saved as UTF-8");
    check_refused(json + "x", "JSON at byte " + std::to_string(json.size() + 1), "must be well-formed");
    check_refused(json + "{}", "JSON at byte", "must be well-formed");
    check_refused(json + std::string(1, '\0'), "at byte " + std::to_string(json.size() + 1), "NUL");
    check_refused("// comment\n" + json, "JSON at byte 1", "must be well-formed");
    check_refused(json.substr(0, json.rfind('}')) + ",}", "JSON at byte", "must be well-formed");
    check_cases({
        {"\"order\": \"FWH\"", "\"order\": FWH", "layers[0].heads[1].order", "JSON at byte"},
        {"[0, 1, 2]", "[0, 1e999, 2]", "bins.F[1]", "must be a finite number"},
        {"[0, 1, 2]", "[0, 1, 2,]", "bins.F[3]", "JSON at byte"},
        {"[0, 1, 2]", "[0, +1, 2]", "bins.F[1]", "JSON at byte"},
        {"[0, 1, 2]", "[0, 01, 2]", "bins.F[2]", "JSON at byte"},
    });
    const std::string whole = json.substr(0, json.rfind('}'));
    for (std::size_t length = 0; length <= whole.size(); ++length) {
        REQUIRE(error_of([&] { parse_profile(json.substr(0, length)); }) != "no error");
    }
}

TEST_CASE("kernels that do not decode are refused", "[profile]") {
    const std::string json = dump_profile(samples::small());
    const std::size_t start = json.find("\"kernel\": \"") + 11, size = json.find('"', start) - start;
    const auto with = [&](const std::string& kernel) { return std::string(json).replace(start, size, kernel); };
    const std::string kernel = json.substr(start, size), place = "layers[0].heads[0].groups[0].kernel";
    check_refused(with(kernel.substr(0, 20)), place, "(got a zlib stream that ends too early)");
    check_refused(with(kernel.substr(0, 21)), place, "must be standard base64 with padding");
    check_refused(with("!" + kernel.substr(1)), place, "must be standard base64 with padding");
    check_refused(with(kernel.substr(0, 4) + "\\n" + kernel.substr(4)), place, "must be standard base64");
    check_refused(with(""), place, "(got a zlib stream that ends too early)");
    check_refused(with("AAAA" + kernel.substr(4)), place, "(got no valid zlib stream)");
    const std::size_t last = kernel.find_last_not_of('=');
    std::string sum = kernel;
    sum[last - 2] = sum[last - 2] == 'A' ? 'B' : 'A';
    check_refused(with(sum), place, "(got no valid zlib stream)");
}

TEST_CASE("size and depth are checked before parsing", "[profile]") {
    const std::string json = dump_profile(samples::small());
    const auto refusal = [](const std::string& text, const paro::ProfileLimits& limits) {
        return error_of([&] { parse_profile(text, limits); });
    };
    CHECK_THAT(refusal(json, {.bytes = 100}), ContainsSubstring("profile must not exceed 100 bytes (got "));
    CHECK_THAT(refusal(json, {.string_bytes = 60}), ContainsSubstring("must not hold a string beyond 60 bytes"));
    CHECK_THAT(refusal(json, {.depth = 3}), ContainsSubstring("must not nest deeper than 3"));
    CHECK(refusal(json, {.depth = 8}) == "no error");
    CHECK_THAT(refusal(std::string(17, '['), {}),
               ContainsSubstring("at byte 17 must not nest deeper than 16 (got 17)"));
    CHECK_THAT(refusal(std::string(60'000'000, '['), {}), ContainsSubstring("must not nest deeper than 16"));
    CHECK_THAT(refusal('"' + std::string(17'000'000, 'x'), {}), ContainsSubstring("string beyond 6291456 bytes"));
    CHECK_THAT(refusal(std::string(68'000'000, ' '), {}), ContainsSubstring("must not exceed 67108864 bytes"));
    std::string flat = "{\"layers\": [";
    while (flat.size() < 60'000'000) flat += "{},";
    CHECK_THAT(refusal(flat, {}), ContainsSubstring("layers[0].id is required"));
}

TEST_CASE("a bomb of zeros is refused before it is inflated", "[profile]") {
    // 128 * 160 * 200 bins in 64 heads of 4 layers: a gigabyte of codes, though each kernel is a few KB of text.
    paro::Profile profile = samples::profile({3, 4, 5}, 4, 64, 1, paro::Bins::even({3, 4, 5}));
    std::string json = dump_profile(profile);
    const auto axis = [](int edges) {
        std::string out = "[0";
        for (int i = 1; i < edges; ++i) out += ", " + std::to_string(i);
        return out + ']';
    };
    json = replaced(json, "\"F\": [0, 1, 2]", "\"F\": " + axis(128));
    json = replaced(json, "\"H\": [0, 1, 2, 3]", "\"H\": " + axis(160));
    json = replaced(json, "\"W\": [0, 1, 2, 3, 4]", "\"W\": " + axis(200));
    check_refused(json, "layers", "must not hold more than 268435456 codes in all kernels");
}

TEST_CASE("a profile in memory is checked before it is written", "[profile]") {
    const auto refusal = [](auto damage) {
        paro::Profile profile = samples::small();
        damage(profile);
        return error_of([&] { dump_profile(profile); });
    };
    using P = paro::Profile;
    CHECK_THAT(refusal([](P& p) { p.defaults.density = NAN; }), ContainsSubstring("defaults.density must be from"));
    CHECK_THAT(refusal([](P& p) { p.timestep_groups[0].sigma_max = INFINITY; }),
               ContainsSubstring("sigma_max must be"));
    CHECK_THAT(refusal([](P& p) { p.timestep_groups[1].sigma_min = NAN; }), ContainsSubstring("sigma_min must be"));
    CHECK_THAT(refusal([](P& p) { p.timestep_groups.clear(); }),
               ContainsSubstring("timestep_groups must be from 1 to 2"));
    CHECK_THAT(refusal([](P& p) { p.model.family = "\xFF"; }),
               ContainsSubstring("model.family must be UTF-8 (got \\xff)"));
    CHECK_THAT(refusal([](P& p) { p.layers[1].heads[0].order = paro::AxisOrder(9); }),
               ContainsSubstring("layers[1].heads[0].order must be one of the six axis orders, 0 to 5 (got 9)"));
    CHECK_THAT(refusal([](P& p) { p.layers[1].heads[1].groups[1].kernel.code.pop_back(); }),
               ContainsSubstring("layers[1].heads[1].groups[1].kernel must hold one code per bin (60) (got 59)"));
    CHECK_THAT(refusal([](P& p) { p.layers[1].heads[1].groups[1].kernel.peak = NAN; }),
               ContainsSubstring("[1].peak must"));
    CHECK_THAT(refusal([](P& p) { p.layers[1].heads[1].groups.pop_back(); }),
               ContainsSubstring("layers[1].heads[1].groups"));
    CHECK_THAT(refusal([](P& p) { p.layers.pop_back(); }),
               ContainsSubstring("layers must hold as many layers as model.layers says"));
    CHECK_THAT(refusal([](P& p) { p.bins.f.edges.clear(); }), ContainsSubstring("bins.F must have edges"));
}
