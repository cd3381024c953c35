// Files that somebody made to break the viewer: each is told with its place, at little cost, and what is open stays.
#ifdef __linux__
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdio>

#include "document/files/preferences.h"
#include "hostile_files.h"
#include "viewer_samples.h"

using namespace paro::viewer;
using Catch::Matchers::ContainsSubstring;

namespace {

// 100 ms and 50 MB; a machine under load gets ten times the time.
constexpr double kMilliseconds = 1000.0, kMegabytes = 50.0;

struct Dearest {
    double milliseconds = 0.0, megabytes = 0.0;
    std::string slow, large;

    void take(const hostile::Cost& cost, const std::string& name) {
        const double time = cost.milliseconds(), memory = cost.megabytes();
        CHECK(time < kMilliseconds);
        CHECK(memory < kMegabytes);
        if (time > milliseconds) milliseconds = time, slow = name;
        if (memory > megabytes) megabytes = memory, large = name;
    }
};

std::string all(const std::vector<Message>& messages) {
    std::string out;
    for (const Message& message : messages) out += message.text + '\n';
    return out;
}

// What the document says of a file that is opened while another is shown.
std::string told(samples::Opened& opened, const hostile::Json& one, const std::filesystem::path& path) {
    Document& document = opened.document;
    while (!document.messages().empty()) document.dismiss(document.messages().front().id);
    if (one["file"] == "run_log") {
        document.open_run_log(path);
    } else {
        document.open(path);
    }
    opened.settle();
    std::string text = all(document.messages());
    if (one["file"] == "run_log" && document.run_log()) text += document.run_log()->first_problem;
    return text;
}

}  // namespace

TEST_CASE("hostile files are told with their place, and what is open stays", "[hostile]") {
    samples::Opened opened;
    Dearest dearest;
    std::size_t count = 0;
    for (const hostile::Json& one : hostile::table()["cases"]) {
        const std::string name = one["id"];
        INFO(name);
        const samples::Folder folder;
        const std::filesystem::path path = hostile::make(one, folder.path());
        const hostile::Cost cost;
        const std::string text = told(opened, one, path);
        dearest.take(cost, name);
        CHECK_THAT(text, ContainsSubstring(one["place"].get<std::string>()));
        CHECK(text.size() < 2500);
        CHECK(opened.document.path() == opened.profile);
        ++count;
    }
    CHECK(count >= 60);
    std::printf("%zu hostile files in the viewer: at most %.1f ms (%s), %.1f MB (%s)\n", count, dearest.milliseconds,
                dearest.slow.c_str(), dearest.megabytes, dearest.large.c_str());
}

TEST_CASE("a run log of nothing but new layers or runs is read in time and memory", "[hostile]") {
    std::string layers, runs;
    for (int i = 0; i < 200'000; ++i) {
        layers += R"({"step":0,"path":"dense","layer":"l)" + std::to_string(i) + "\"}\n";
        runs += "{\"run\":true}\n";
    }
    const hostile::Cost cost;
    const RunLog many = parse_run_log(layers), empty = parse_run_log(runs);
    CHECK(many.runs.at(0).layers.size() == 4096);
    CHECK(many.skipped == 200'000 - 4096);
    CHECK(many.first_problem == "line 4097 is not a line of a run log");
    CHECK(empty.runs.size() <= 10'000);
    CHECK(cost.megabytes() < kMegabytes);
    CHECK(cost.milliseconds() < 10 * kMilliseconds);  // comparing each layer with all before takes minutes
}

TEST_CASE("counts of calls that no run makes are left out", "[hostile]") {
    const RunLog log =
        parse_run_log(R"({"end":true,"ok":true,"paths":{"dense":9223372036854775807,"observe":9223372036854775807,)"
                      R"("sparse":-5,"fallback":18446744073709551615,"x":7}})");
    CHECK(log.runs.at(0).dense_calls() == 7);
    CHECK(log.runs.at(0).sparse_calls() == 0);
}

TEST_CASE("settings in a pipe or of many megabytes are the defaults", "[hostile]") {
    const samples::Folder folder;
    REQUIRE(::mkfifo((folder / "viewer.json").c_str(), 0600) == 0);
    CHECK(load_preferences(folder.path()) == Preferences{});
    std::filesystem::remove(folder / "viewer.json");
    samples::write(folder / "viewer.json", R"({"theme": 1})" + std::string(2u << 20, ' '));
    const hostile::Cost cost;
    CHECK(load_preferences(folder.path()) == Preferences{});
    CHECK(cost.megabytes() < 1.0);
}
#endif
