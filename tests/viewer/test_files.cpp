// Files as users have them: half written, gone, of another model, not writable, malformed.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "document/files/preferences.h"
#include "viewer_samples.h"

using Catch::Matchers::ContainsSubstring;
using paro::viewer::Document;
using paro::viewer::Scope;
using samples::Opened;

namespace {

std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a malformed profile gives a message with file, place and rule, and what is open stays") {
    Opened opened;
    const std::string good = read(opened.profile);
    const auto [from, to, expected] = GENERATE_COPY(table<std::string, std::string, std::string>({
        {"\"locked\": false", "\"locked\": 7", "locked must be"},
        {"\"order\": \"FHW\"", "\"order\": \"FFF\"", "order must be"},
        {"paroattention/1", "paroattention/9", "schema must be"},
        {"{", "[", "must be"},
        {"\"heads\": [", "\"extra\": 1, \"heads\": [", "must hold only the keys"},
    }));
    const auto bad = opened.folder / "bad.json";
    samples::write(bad, samples::replaced(good, from, to));
    opened.document.open(bad);
    opened.settle();
    CHECK(opened.told(bad.string()));
    CHECK(opened.told(expected));
    CHECK(opened.document.path() == opened.profile);
    CHECK(opened.document.has_profile());
}

TEST_CASE("no damaged file ends the program or goes unnoticed") {
    samples::Folder folder;
    paro::viewer::Workers workers(1);
    const std::string profile = dump_profile(samples::grid_profile(1));
    save_capture(samples::grid_capture(), folder / "good.capture.safetensors");
    const std::string capture = read(folder / "good.capture.safetensors");
    for (std::uint32_t seed = 0; seed < 300; ++seed) {
        Document document(workers);
        const bool is_profile = seed % 2 == 0;
        const auto path = folder / (is_profile ? "bad.json" : "bad.safetensors");
        samples::write(path, samples::mutated(is_profile ? profile : capture, seed));
        document.open(path);
        REQUIRE(workers.drain(60.0));
        if (document.has_profile()) continue;  // the damage changed nothing that has a rule
        REQUIRE(document.messages().size() == 1);
        CHECK_THAT(document.messages()[0].text, ContainsSubstring(path.string()));
    }
}

TEST_CASE("a profile that changes on disk is read again, and edits are kept") {
    Opened opened;
    Document& document = opened.document;
    double now = 0.0;
    document.set_density(Scope::head, 0.77);
    document.select(4);
    paro::Profile changed = document.base();
    changed.layers[2].heads[1].order = paro::AxisOrder::HFW;
    changed.calibration.prompts = 9;
    save_profile(changed, opened.profile);
    opened.look(now);
    CHECK(document.base().calibration.prompts == 9);
    CHECK(document.heads()[5].order == paro::AxisOrder::HFW);
    CHECK(document.density(0) == 0.77);
    CHECK(document.selected() == 4);
    CHECK(document.modified());
    CHECK(document.edited_count() == 1);
    CHECK(opened.told("your edits were kept"));
}

TEST_CASE("a half-written profile is waited for") {
    Opened opened;
    Document& document = opened.document;
    double now = 0.0;
    const std::string whole = read(opened.profile);
    samples::write(opened.profile, whole.substr(0, whole.size() / 2));
    opened.look(now);
    CHECK(document.has_profile());
    CHECK(opened.told("What was read before stays"));
    paro::Profile next = document.base();
    next.calibration.prompts = 3;
    samples::write(opened.profile, dump_profile(next));
    opened.look(now);
    CHECK(document.base().calibration.prompts == 3);
}

TEST_CASE("a profile that vanishes stays on the screen and can be saved again") {
    Opened opened(false, false);
    double now = 0.0;
    std::filesystem::remove(opened.profile);
    opened.look(now);
    CHECK(opened.told("is gone"));
    CHECK(opened.document.has_profile());
    opened.document.save();
    opened.settle();
    CHECK(std::filesystem::exists(opened.profile));
    const auto messages = opened.document.messages().size();
    opened.look(now);
    CHECK(opened.document.messages().size() == messages);  // our own write is no change
}

TEST_CASE("a capture and a run log that come later are taken in") {
    Opened opened(false, false);
    Document& document = opened.document;
    double now = 0.0;
    opened.look(now);
    CHECK_FALSE(document.rows_captured(1));
    save_capture(samples::grid_capture(), opened.folder / "wan.capture.safetensors");
    opened.look(now);
    CHECK(document.rows_captured(1));
    samples::write(opened.folder / "runlog.jsonl", samples::run_log(document.base().model.fingerprint));
    opened.look(now);
    REQUIRE(document.run_log() != nullptr);
    CHECK(document.run_log()->runs.size() == 2);
}

TEST_CASE("a capture of another model is told of and not shown") {
    samples::Folder folder;
    paro::Capture capture = samples::grid_capture();
    save_profile(capture.profile, folder / "wan.json");
    capture.profile.model.fingerprint = std::string(64, 'b');
    save_capture(capture, folder / "wan.capture.safetensors");
    paro::viewer::Workers workers(1);
    Document document(workers);
    document.open(folder / "wan.json");
    REQUIRE(workers.drain(60.0));
    REQUIRE(document.has_profile());
    CHECK(document.capture() == nullptr);
    REQUIRE(document.messages().size() == 1);
    CHECK_THAT(document.messages()[0].text, ContainsSubstring("belongs to another profile"));
}

TEST_CASE("a place that cannot be written to offers another one") {
    Opened opened(false, false);
    Document& document = opened.document;
    document.set_density(Scope::head, 0.5);
    document.save_as(opened.folder / "no such folder" / "x.json");
    opened.settle();
    CHECK(document.modified());
    REQUIRE(document.messages().size() == 1);
    CHECK(document.messages()[0].offers_save_as);
    CHECK_THAT(document.messages()[0].text, ContainsSubstring("x.json"));
    document.save_as(opened.folder / "name.capture.safetensors");
    CHECK(opened.told("must end in .json"));
    document.save_as(opened.folder / "con.json");
    CHECK(opened.told(
        "must not be a device name of Windows, or ComfyUI does not offer it (got \"con\"). Save it as _con.json"));
    document.save_as(opened.folder / "für (1).json");
    opened.settle();
    CHECK_FALSE(document.modified());
    CHECK(document.path() == opened.folder / "für (1).json");
}

TEST_CASE("files belong together by their names") {
    using namespace paro::viewer;
    CHECK(kind_of("a/b.capture.safetensors") == FileKind::capture);
    CHECK(kind_of("a/b.safetensors") == FileKind::capture);
    CHECK(kind_of("runlog.jsonl") == FileKind::run_log);
    CHECK(kind_of("a/b.json") == FileKind::profile);
    CHECK(profile_of_capture("a/b.capture.safetensors") == "a/b.json");
    CHECK(profile_of_capture("a/b.safetensors") == "a/b.json");
    CHECK(capture_of_profile("a/b.json") == "a/b.capture.safetensors");
    samples::Folder folder;
    Workers workers(1);
    Document document(workers);
    document.open(folder / "runlog.jsonl");
    REQUIRE(workers.drain(10.0));
    CHECK_FALSE(document.has_profile());
    CHECK_FALSE(document.messages().empty());
}

TEST_CASE("preferences come back, and broken ones are the defaults") {
    using namespace paro::viewer;
    samples::Folder folder;
    Preferences preferences;
    preferences.theme = Theme::light;
    preferences.overlay = paro::Overlay::outline;
    preferences.log_scale = false;
    preferences.ui_scale = 1.5;
    for (int i = 0; i < 12; ++i) preferences.remember(folder / ("file" + std::to_string(i) + ".json"));
    preferences.remember(folder / "file5.json");
    CHECK(preferences.recent.size() == 10);
    CHECK(preferences.recent.front() == folder / "file5.json");
    save_preferences(preferences, folder / "deep" / "config");
    CHECK(load_preferences(folder / "deep" / "config") == preferences);
    for (const char* text :
         {"", "[1]", "{\"theme\":9,\"overlay\":-1,\"ui_scale\":1e9,\"recent\":[3]}", "{\"theme\":"}) {
        samples::write(folder / "viewer.json", text);
        CHECK(load_preferences(folder.path()) == Preferences{});
    }
    CHECK(load_preferences(folder / "nowhere") == Preferences{});
}
