// Profiles as files: sizes, names, whole or not at all, and damage of every kind.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <fstream>
#include <random>

#include "profile_samples.h"

#ifndef _WIN32
#include <sys/stat.h>
#include <unistd.h>
#endif

using Catch::Matchers::ContainsSubstring;
using samples::error_of;

namespace {

std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("a saved profile loads again and leaves nothing beside it", "[profile][file]") {
    const samples::Folder folder;
    paro::Profile profile = samples::small();
    save_profile(profile, folder / "a.json");
    CHECK(paro::load_profile(folder / "a.json") == profile);
    profile.defaults.tail = false;
    save_profile(profile, folder / "a.json");
    CHECK(paro::load_profile(folder / "a.json") == profile);
    CHECK(folder.files() == 1);
}

TEST_CASE("an existing profile survives every failure to save", "[profile][file]") {
    const samples::Folder folder;
    const paro::Profile profile = samples::small();
    save_profile(profile, folder / "a.json");
    const std::string before = read(folder / "a.json");

    paro::Profile broken = profile;
    broken.layers.clear();
    CHECK_THAT(error_of([&] { save_profile(broken, folder / "a.json"); }),
               ContainsSubstring("a.json: layers must hold"));
    CHECK(read(folder / "a.json") == before);

    CHECK_THAT(error_of([&] { save_profile(profile, folder / "none/a.json"); }), ContainsSubstring("none/a.json"));
    std::filesystem::create_directory(folder / "d.json");
    CHECK_THAT(error_of([&] { save_profile(profile, folder / "d.json"); }),
               ContainsSubstring("must be a file (got a directory)"));
    CHECK(folder.files() == 2);
}

TEST_CASE("only regular files of a fitting size are loaded", "[profile][file]") {
    const samples::Folder folder;
    CHECK_THAT(error_of([&] { paro::load_profile(folder / "a.json"); }), ContainsSubstring("a.json must be readable"));
    CHECK_THAT(error_of([&] { paro::load_profile(folder.path()); }), ContainsSubstring("must be a regular file"));
    write(folder / "b\n.json", "{}");
    CHECK_THAT(error_of([&] { paro::load_profile(folder / "b\n.json"); }),
               ContainsSubstring("b\\u000a.json: schema is required"));
    write(folder / "c.json", "");
    std::filesystem::resize_file(folder / "c.json", 65u << 20);
    CHECK_THAT(error_of([&] { paro::load_profile(folder / "c.json"); }),
               ContainsSubstring("must not exceed 67108864 bytes"));
}

#ifndef _WIN32
TEST_CASE("pipes and devices are refused without waiting, links to files are followed", "[profile][file]") {
    const samples::Folder folder;
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK_THAT(error_of([&] { paro::load_profile(folder / "pipe"); }), ContainsSubstring("must be a regular file"));
    CHECK_THAT(error_of([&] { paro::load_profile("/dev/zero"); }), ContainsSubstring("must be a regular file"));
    save_profile(samples::small(), folder / "a.json");
    std::filesystem::create_symlink(folder / "a.json", folder / "link.json");
    CHECK(paro::load_profile(folder / "link.json") == samples::small());
    // A write replaces the link and leaves what it pointed to.
    paro::Profile other = samples::small();
    other.defaults.tail = false;
    save_profile(other, folder / "link.json");
    CHECK(paro::load_profile(folder / "a.json") == samples::small());
    CHECK(paro::load_profile(folder / "link.json") == other);
}

TEST_CASE("a folder that cannot be written to keeps its profile", "[profile][file]") {
    if (::geteuid() == 0) SKIP("root may write anywhere");
    const samples::Folder folder;
    const paro::Profile profile = samples::small();
    save_profile(profile, folder / "a.json");
    std::filesystem::permissions(folder.path(),
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    CHECK_THAT(error_of([&] { save_profile(profile, folder / "a.json"); }),
               ContainsSubstring("a.json must be in a folder"));
    CHECK(folder.files() == 1);
    CHECK(paro::load_profile(folder / "a.json") == profile);
    std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}
#endif

namespace {

std::string repeated(std::string_view text, std::size_t times) {
    std::string out;
    for (std::size_t i = 0; i < times; ++i) out += text;
    return out;
}

}  // namespace

TEST_CASE("names of profiles that people have", "[profile][names]") {
    const std::string good[] = {"a",
                                "wan21-0f19aaaa-21x45x80",
                                "A_b.c-1",
                                "shared (1)",
                                "mein profil für wan",
                                "配置",
                                "профиль",
                                "nai\u0308ve",  // NFD, as macOS writes it
                                "[14B] {fast} & 100% it's, #1 + $5; ok=yes!",
                                " leading space",
                                "console",
                                "com",
                                "com10",
                                "COM\u00B9\u00B2",
                                "lpt",
                                "nullify.x",
                                "xcon",
                                "a..b",
                                "\U0001F600",
                                std::string(235, 'x'),
                                repeated("配", 78)};
    for (const std::string& name : good) {
        INFO(name);
        CHECK(error_of([&] { paro::validate_profile_name(name); }) == "no error");
        CHECK(paro::suggest_profile_name(name) == name);
        CHECK(paro::profile_name_rule(name).empty());
    }
}

TEST_CASE("names that are not safe on every system say the rule and one that would do", "[profile][names]") {
    struct Case {
        std::string name, rule, suggestion;
    };
    const Case cases[] = {
        {"", "must not be empty", "profile"},
        {".", "start with a dot", "profile"},
        {"..", "start with a dot", "profile"},
        {"../outside", "none of", "_outside"},
        {".a", "start with a dot", "a"},
        {"._shared", "start with a dot", "_shared"},
        {"a.", "end with a dot or space", "a"},
        {"a ", "end with a dot or space", "a"},
        {"a. .", "end with a dot or space", "a"},
        {"a/b", "none of", "a_b"},
        {"a\\b", "none of", "a_b"},
        {"C:\\x", "none of", "C_x"},
        {"a?*<>|\"b", "none of", "a_b"},
        {"CON", "device", "_CON"},
        {"con", "device", "_con"},
        {"con .x", "device", "_con .x"},
        {"nul.json", "device", "_nul.json"},
        {"AuX.tar.gz", "device", "_AuX.tar.gz"},
        {"prn", "device", "_prn"},
        {"COM0", "device", "_COM0"},
        {"com9.x", "device", "_com9.x"},
        {"LpT5", "device", "_LpT5"},
        {"LPT\u00B9", "device", "_LPT\u00B9"},
        {"com\u00B3.y", "device", "_com\u00B3.y"},
        {"CONIN$", "device", "_CONIN$"},
        {"a\n", "control", "a_"},
        {"a\x7F", "control", "a"},
        {std::string("a\0b", 3), "control", "a_b"},
        {"a\u202Egpj", "control or invisible", "agpj"},  // turns the direction of writing
        {"a\u200Bb", "control or invisible", "ab"},
        {"a\u00ADb", "invisible", "ab"},
        {"a\U000E0041", "invisible", "a"},
        {"a\u3164", "invisible", "a"},
        {"a\xE9", "valid Unicode", "a_"},          // Latin-1
        {"a\xED\xB3\xA9", "valid Unicode", "a_"},  // half of a pair
        {std::string(236, 'x'), "235 bytes", std::string(235, 'x')},
        {repeated("配", 79), "235 bytes", repeated("配", 78)},
        {repeated("\U0001F600", 59), "235 bytes", repeated("\U0001F600", 58)},
    };
    for (const Case& one : cases) {
        INFO(one.name);
        const std::string told = error_of([&] { paro::validate_profile_name(one.name); });
        CHECK_THAT(told, ContainsSubstring("profile name must ") && ContainsSubstring(one.rule));
        CHECK_THAT(told, ContainsSubstring("would do"));
        CHECK(told.size() < 300);
        CHECK(paro::suggest_profile_name(one.name) == one.suggestion);
        CHECK(paro::profile_name_rule(one.suggestion).empty());
    }
}

TEST_CASE("whatever the bytes, what is suggested is a name", "[profile][names][fuzz]") {
    std::mt19937 random(7);
    const std::string signs =
        "a.. /\\:*\"<>|?\x01\x7F\xC2\xAD\xE2\x80\xAE\xF0\x9F\x98\x80\xED\xA0\x80"
        "con.nul";
    for (int round = 0; round < 20000; ++round) {
        std::string name;
        for (std::size_t i = random() % 300; i > 0; --i) name += signs[random() % signs.size()];
        const std::string suggestion = paro::suggest_profile_name(name);
        INFO(name);
        REQUIRE(paro::profile_name_rule(suggestion) == "");
        REQUIRE(paro::suggest_profile_name(suggestion) == suggestion);
        if (paro::profile_name_rule(name).empty()) REQUIRE(suggestion == name);
    }
}

TEST_CASE("grids near a calibrated one are told from far ones", "[profile]") {
    paro::Profile profile = samples::small();
    profile.calibration.grids = {{20, 40, 80}, {4, 4, 4}};
    using paro::GridMatch;
    CHECK(match_grid(profile, {20, 40, 80}) == GridMatch::exact);
    CHECK(match_grid(profile, {4, 4, 4}) == GridMatch::exact);
    CHECK(match_grid(profile, {15, 54, 80}) == GridMatch::near);
    CHECK(match_grid(profile, {27, 30, 108}) == GridMatch::near);
    CHECK(match_grid(profile, {14, 40, 80}) == GridMatch::far);
    CHECK(match_grid(profile, {20, 55, 80}) == GridMatch::far);
    CHECK(match_grid(profile, {20, 4, 4}) == GridMatch::far);  // a side of each does not make a grid
    CHECK(match_grid(profile, {2147483647, 1, 1}) == GridMatch::far);
}

TEST_CASE("the timestep group of a sigma is the nearest", "[profile]") {
    paro::Profile profile = samples::small();
    profile.timestep_groups = {{1.0, 0.75}, {0.5, 0.25}};
    CHECK(timestep_group(profile, 1.0) == 0);
    CHECK(timestep_group(profile, 0.9) == 0);
    CHECK(timestep_group(profile, 0.75) == 0);  // in neither: sigma_min is outside
    CHECK(timestep_group(profile, 0.5) == 1);
    CHECK(timestep_group(profile, 0.6) == 1);
    CHECK(timestep_group(profile, 0.7) == 0);
    CHECK(timestep_group(profile, 80.0) == 0);
    CHECK(timestep_group(profile, INFINITY) == 0);
    CHECK(timestep_group(profile, 0.0) == 1);
    CHECK(timestep_group(profile, NAN) == 0);
    profile.timestep_groups = {{1.0, 0.5}, {0.5, 0.0}};
    CHECK(timestep_group(profile, 0.5) == 1);
    // As float32 or rescaled.
    CHECK(timestep_group(profile, 0.5 * (1 + 1e-6)) == 1);
    CHECK(timestep_group(profile, 0.5 * (1 - 1e-6)) == 1);
    CHECK(timestep_group(profile, 0.5 * (1 + 1e-4)) == 0);
    CHECK(timestep_group(profile, 1.0 + 1e-6) == 0);
}

TEST_CASE("profiles stay small", "[profile]") {
    struct Case {
        paro::Grid grid;
        std::int32_t layers, heads;
        std::size_t bytes;
    };
    // The bundled model, Wan 1.3B at 480p, Wan 14B at 720p; two groups.
    for (const Case& c : {Case{{10, 16, 22}, 8, 2, 60'000}, Case{{21, 30, 52}, 30, 12, 2'000'000},
                          Case{{21, 45, 80}, 40, 40, 8'000'000}}) {
        // A few layers say what all of them take.
        const std::int32_t layers = std::min(c.layers, 4);
        paro::Profile profile = samples::profile(c.grid, layers, c.heads, 2, paro::Bins::even(c.grid));
        for (auto& layer : profile.layers) {
            for (auto& head : layer.heads) {
                for (auto& group : head.groups) group.kernel = paro::coarse(profile.bins, std::move(group.kernel));
            }
        }
        const std::size_t size = dump_profile(profile).size() * static_cast<std::size_t>(c.layers / layers);
        INFO(profile.bins.size() << " bins: " << size << " bytes");
        CHECK(size < c.bytes);
    }
}

TEST_CASE("a profile of Wan 14B parses in linear time", "[profile]") {
    const paro::Grid grid{21, 45, 80};
    const paro::Profile profile = samples::profile(grid, 40, 40, 2, paro::Bins::even(grid));
    const std::string json = dump_profile(profile);
    const auto start = std::chrono::steady_clock::now();
    const paro::Profile read = paro::parse_profile(json);
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    INFO(profile.bins.size() << " bins, " << json.size() << " bytes, parsed in " << time.count() << " ms");
    CHECK(read == profile);
    CHECK(time.count() < 10'000.0);  // a parser gone quadratic takes longer
}

TEST_CASE("damaged profiles are refused by Error alone", "[profile][fuzz]") {
    const std::string json = dump_profile(samples::profile({3, 4, 5}, 1, 2, 2, paro::Bins::even({3, 4, 5})));
    int refused = 0;
    constexpr int kRounds = 8000;
    for (int round = 0; round < kRounds; ++round) {
        const std::string damaged = samples::mutated(json, static_cast<std::uint32_t>(round));
        try {
            const paro::Profile read = paro::parse_profile(damaged);
            // What is accepted must hold every rule, and be written and read again.
            REQUIRE(paro::parse_profile(dump_profile(read)) == read);
        } catch (const paro::Error& error) {
            ++refused;
            REQUIRE(std::string_view(error.what()).size() < 600);
        }
    }
    CHECK(refused > kRounds / 2);
}
