// A document over a store that is not this machine's disk, and workers without threads: what a page has.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <thread>

#include "document/files/utf8.h"
#include "viewer_samples.h"

using Catch::Matchers::ContainsSubstring;
using paro::viewer::disk;
using paro::viewer::Document;
using paro::viewer::Priority;
using paro::viewer::Scope;
using paro::viewer::Stamp;
using paro::viewer::Ticket;
using paro::viewer::Workers;

namespace {

// A server's files, here those of a folder. Answers come when the test gives them.
class Remote : public paro::viewer::FileStore {
   public:
    Stamp stamp(const std::filesystem::path& path) const override {
        return hidden == path ? Stamp{} : disk().stamp(path);
    }
    bool remote() const override { return true; }
    void bring(const std::filesystem::path& path, Ready ready) override {
        ++brought[paro::viewer::utf8(path.filename())];
        ready(problem);
    }
    Finish save(const paro::Profile& profile, const std::filesystem::path& path, const Stamp& read) override {
        base = read;
        return [this, profile, path](Done done) {
            answer = [profile, path, done](const std::string& refusal) {
                if (refusal.empty()) save_profile(profile, path);
                done({disk().stamp(path), refusal});
            };
        };
    }
    std::vector<paro::viewer::Listed> list(const std::filesystem::path&, std::string&) const override { return {}; }

    std::filesystem::path hidden;  // not there yet
    std::string problem;
    std::map<std::string, int> brought;
    Stamp base;
    std::function<void(const std::string&)> answer;
};

struct Far {
    Far() {
        save_profile(samples::grid_profile(), profile);
        document.open(profile);
        REQUIRE(workers.drain(60.0));
        REQUIRE(document.has_profile());
    }
    void look() {
        document.look_now();
        document.update(now += 0.01);
        REQUIRE(workers.drain(60.0));
    }
    bool told(const std::string& words) const {
        return std::ranges::any_of(document.messages(),
                                   [&](const auto& m) { return m.text.find(words) != m.text.npos; });
    }
    samples::Folder folder;
    std::filesystem::path profile = folder / "wan.json";
    Remote store;
    Workers workers{Workers::kNone};
    Document document{workers, store};
    double now = 100.0;
};

}  // namespace

TEST_CASE("a save that is not answered leaves the document modified") {
    Far far;
    far.document.set_density(Scope::head, 0.5);
    far.document.save();
    REQUIRE(far.workers.drain(10.0));
    REQUIRE(far.store.answer);
    CHECK(far.document.saving());
    CHECK(far.document.modified());
    CHECK_FALSE(far.document.settled());
    far.store.answer("");
    CHECK_FALSE(far.document.saving());
    CHECK_FALSE(far.document.modified());
    CHECK(far.told("Saved"));
    CHECK(paro::load_profile(far.profile).layers[0].heads[0].density == 0.5);
    const auto messages = far.document.messages().size();
    far.look();
    CHECK(far.document.messages().size() == messages);  // our own write is no change
}

TEST_CASE("a save that is refused leaves the document modified, and says why") {
    Far far;
    const Stamp read = disk().stamp(far.profile);
    far.document.set_density(Scope::head, 0.5);
    far.document.save();
    REQUIRE(far.workers.drain(10.0));
    CHECK(far.store.base == read);  // of the version that the edits were made of
    far.store.answer("wan.json was saved by someone else");
    CHECK(far.document.modified());
    CHECK_FALSE(far.document.saving());
    REQUIRE(far.document.messages().size() == 1);
    CHECK(far.document.messages()[0].text == "Not saved: wan.json was saved by someone else");
    CHECK(far.document.messages()[0].offers_save_as);
    // What the other one wrote is read, and the edits stay.
    paro::Profile theirs = paro::load_profile(far.profile);
    theirs.calibration.prompts = 9;
    save_profile(theirs, far.profile);
    far.look();
    CHECK(far.told("changed on the server and was read again; your edits were kept"));
    CHECK(far.document.base().calibration.prompts == 9);
    CHECK(far.document.density(0) == 0.5);
    far.document.save();
    REQUIRE(far.workers.drain(10.0));
    CHECK(far.store.base == disk().stamp(far.profile));
    far.store.answer("");
    CHECK_FALSE(far.document.modified());
    CHECK(paro::load_profile(far.profile).calibration.prompts == 9);
}

TEST_CASE("a profile that was deleted is written without a version to replace") {
    Far far;
    far.document.set_density(Scope::head, 0.5);
    std::filesystem::remove(far.profile);
    far.look();
    CHECK(far.told("is gone"));
    far.document.save();
    REQUIRE(far.workers.drain(10.0));
    CHECK_FALSE(far.store.base.exists);
    far.store.answer("");
    CHECK(std::filesystem::exists(far.profile));
}

TEST_CASE("a capture that comes later is attached without a word, and the profile is not read again") {
    Far far;
    far.document.set_density(Scope::head, 0.5);
    far.document.select(1);
    CHECK_FALSE(far.document.rows_captured(1));
    save_capture(samples::grid_capture(), far.folder / "wan.capture.safetensors");
    far.look();
    CHECK(far.document.rows_captured(1));
    CHECK(far.document.messages().empty());
    CHECK(far.document.modified());
    CHECK(far.store.brought["wan.json"] == 1);
    CHECK(far.store.brought["wan.capture.safetensors"] == 1);
}

#ifndef _WIN32
TEST_CASE("a file that was written again has another stamp, also of one size and time") {
    samples::Folder folder;
    const std::filesystem::path path = folder / "wan.json";
    save_profile(samples::grid_profile(), path);
    const auto time = std::filesystem::last_write_time(path);
    const Stamp before = disk().stamp(path);
    CHECK(disk().stamp(path) == before);
    save_profile(samples::grid_profile(), path);
    std::filesystem::last_write_time(path, time);
    const Stamp after = disk().stamp(path);
    CHECK((after.size == before.size && after.time == before.time));
    CHECK(after != before);
    CHECK(disk().stamp(folder / "none.json") == Stamp{});
}
#endif

TEST_CASE("what cannot be fetched is told of, and asked for again") {
    Far far;
    far.store.problem = "wan.json: the server does not answer";
    paro::Profile theirs = paro::load_profile(far.profile);
    theirs.calibration.prompts = 9;
    save_profile(theirs, far.profile);
    far.look();
    CHECK(far.told("does not answer"));
    CHECK(far.document.has_profile());
    far.store.problem.clear();
    far.look();
    CHECK(far.document.base().calibration.prompts == 9);
    far.store.problem = "other.json: there is no such profile";
    far.document.open(far.folder / "other.json");
    CHECK(far.told("no such profile"));
    CHECK(far.document.path() == far.profile);
}

TEST_CASE("without threads work runs in slices, urgent first, and what can wait waits for the user") {
    Workers workers(Workers::kNone);
    CHECK(workers.threads() == 0);
    std::vector<int> order;
    const auto note = [&](int number) {
        return [&order, number]() -> Workers::Delivery {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            return [&order, number] { order.push_back(number); };
        };
    };
    for (int i = 0; i < 20; ++i) workers.post(Priority::idle, Ticket(), note(100 + i));
    workers.post(Priority::normal, Ticket(), note(2));
    workers.post(Priority::urgent, Ticket(), note(1));
    Ticket cancelled;
    workers.post(Priority::urgent, cancelled, note(9));
    cancelled.cancel();
    CHECK(workers.pending() == 23);
    workers.deliver(0.0, false);
    CHECK(order == std::vector<int>{1, 2});
    workers.deliver(0.0, false);
    CHECK(order.size() == 2);
    workers.deliver(0.0, true);
    CHECK(order.size() >= 3);
    CHECK(order.size() <= 6);  // a slice of 12 ms holds two or three of them
    REQUIRE(workers.drain(10.0));
    CHECK(order.size() == 22);
}
