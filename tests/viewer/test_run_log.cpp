// Run logs, predicted time, lists of heads, and the workers.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "document/compute/head_list.h"
#include "expect_error.h"
#include "viewer_samples.h"

using namespace paro::viewer;
using Catch::Matchers::WithinAbs;

TEST_CASE("shares that do not go with the heads are left out") {
    for (const char* kept : {"[0.5]", "[0.5,0.5,0.5]", "[0.5,\"x\"]", "7", "[]"}) {
        const std::string line =
            R"({"step":1,"layer":"a","heads":[0,1],"path":"sparse","head_retained":)" + std::string(kept) + "}";
        const RunLog log = parse_run_log(line + "\n");
        REQUIRE(log.runs.size() == 1);
        CHECK(log.runs[0].lines[0].head_retained.empty());
    }
    const RunLog log = parse_run_log(R"({"step":1,"layer":"a","heads":[0,1],"path":"sparse","head_retained":[-3,1e9]})"
                                     "\n");
    CHECK(log.runs[0].lines[0].head_retained == std::vector<double>{0.0, 1.0});
}

TEST_CASE("what was not measured is not made up") {
    const std::string head = R"({"step":1,"layer":"a","heads":[0],"path":"sparse","density":0.3)";
    for (const char* rest : {R"(,"retained":null})", "}", R"(,"retained":"most"})"}) {
        const RunLog log = parse_run_log(head + rest + "\n");
        REQUIRE(log.runs.size() == 1);
        CHECK(log.runs[0].lines[0].density == 0.3);
        CHECK(!log.runs[0].lines[0].retained);
    }
    const RunLog log =
        parse_run_log(head + R"(,"retained":0.75})" + "\n" + R"({"end":true,"ok":true,"mask":"dynamic"})" + "\n");
    CHECK(log.runs[0].lines[0].retained == 0.75);
    CHECK(log.runs[0].mask == "dynamic");
}

TEST_CASE("a run log is read run by run") {
    const RunLog log = parse_run_log(samples::run_log("abc"));
    REQUIRE(log.runs.size() == 2);
    CHECK(log.skipped == 0);
    const Run& run = log.runs[1];
    CHECK(run.layers == std::vector<std::string>{"block.0.0", "block.1.0"});
    CHECK(run.steps == 20);
    CHECK(run.ended);
    CHECK(run.precision == "int8");
    CHECK(run.grid == paro::Grid{4, 8, 10});
    CHECK(run.reasons.at("output was not finite") == 3);
    REQUIRE(run.at("block.0.0", 1) != nullptr);
    CHECK(run.at("block.0.0", 1)->path == Path::sparse);
    CHECK(run.at("block.0.0", 1)->error == 0.25);
    CHECK(run.at("block.0.0", 1)->head_retained == std::vector<double>{0.75, 0.5});
    CHECK(run.at("block.1.0", 1)->head_retained.empty());
    CHECK(run.at("block.1.0", 1)->reason == "output was not finite");
    CHECK(run.at("block.9.0", 1) == nullptr);
    CHECK(log.newest("abc") == 1);
    CHECK(log.newest("other") == 1);
    CHECK(RunLog{}.newest("abc") == -1);
}

TEST_CASE("bad and half-written lines are counted, the rest is read") {
    const std::string good = samples::run_log("abc");
    const RunLog log = parse_run_log("nonsense\n[1,2]\n{\"step\":-1}\n" + good + "{\"step\":3,\"laye");
    CHECK(log.runs.size() >= 2);
    CHECK(log.skipped == 4);
    CHECK(log.first_problem.find("line 1 ") == 0);
    CHECK(parse_run_log("").runs.empty());
    for (std::uint32_t seed = 0; seed < 500; ++seed) parse_run_log(samples::mutated(good, seed));
    EXPECT_ERROR(load_run_log("/no/such/runlog.jsonl"), "/no/such/runlog.jsonl must be");
}

TEST_CASE("a run log that an editor saved in UTF-16 says what to do, a mark before UTF-8 is skipped") {
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("paro-wide-" + std::to_string(std::random_device()()) + ".jsonl");
    std::string wide = "\xFF\xFE";
    for (const char c : samples::run_log("abc")) wide += {c, '\0'};
    std::ofstream(path, std::ios::binary) << wide;
    EXPECT_ERROR(load_run_log(path), path.string() + " must be saved as UTF-8 (got UTF-16 (little-endian)");
    std::ofstream(path, std::ios::binary) << "\xEF\xBB\xBF" << samples::run_log("abc");
    const RunLog log = load_run_log(path);
    CHECK(log.skipped == 0);
    CHECK(log.runs.size() == parse_run_log(samples::run_log("abc")).runs.size());
    std::filesystem::remove(path);
}

TEST_CASE("time is predicted from what dense and sparse calls took") {
    const RunLog log = parse_run_log(samples::run_log("abc"));
    const TimeModel time = fit_time(log, log.runs[1]);
    REQUIRE(time.known);
    CHECK(time.two_runs);
    CHECK_THAT(time.dense_call, WithinAbs(0.1, 1e-12));  // 10 s of 100 calls
    const double work = TimeModel::work(0.3, true, 64);
    CHECK_THAT(time.seconds(0.3, true, 64), WithinAbs(4.0, 1e-9));  // what the run itself took
    CHECK_THAT(time.block_share * 80.0 * work, WithinAbs(2.0, 1e-9));
    CHECK(time.seconds(0.1, true, 64) < 4.0);
    CHECK(time.seconds(0.1, true, 64) > 2.0);  // the dense calls stay
    RunLog alone;
    alone.runs = {log.runs[1]};
    const TimeModel one = fit_time(alone, alone.runs[0]);
    CHECK_FALSE(one.two_runs);
    CHECK_THAT(one.seconds(0.3, true, 64), WithinAbs(4.0, 1e-9));
    CHECK_FALSE(fit_time(alone, Run{}).known);
}

TEST_CASE("heads are filtered, sorted and walked through") {
    samples::Opened opened;
    Document& document = opened.document;
    CHECK(list_heads(document, SortBy::place, {}) == std::vector<std::size_t>{0, 1, 2, 3, 4, 5});
    const auto worst = list_heads(document, SortBy::worst, {});
    for (std::size_t i = 1; i < worst.size(); ++i)
        CHECK(document.retained(worst[i - 1]) <= document.retained(worst[i]));
    const auto by_order = list_heads(document, SortBy::order, {});
    CHECK(document.heads()[by_order.front()].order <= document.heads()[by_order.back()].order);
    HeadFilter filter;
    filter.orders = {true, false, false, false, false, false};
    CHECK(list_heads(document, SortBy::place, filter) == std::vector<std::size_t>{0});
    filter = {};
    filter.captured_only = true;
    CHECK(list_heads(document, SortBy::place, filter) == std::vector<std::size_t>{1});
    filter = {};
    filter.dense_only = true;
    CHECK(list_heads(document, SortBy::place, filter) == std::vector<std::size_t>{2, 3, 4, 5});
    filter = {};
    filter.edited_only = true;
    CHECK(list_heads(document, SortBy::place, filter).empty());
    document.set_density(Scope::head, 0.01);
    CHECK(list_heads(document, SortBy::place, filter) == std::vector<std::size_t>{0});
    CHECK(list_heads(document, SortBy::density, {}).front() == 0);
    CHECK(filter.any());
    CHECK_FALSE(HeadFilter{}.any());

    const std::vector<std::size_t> list = {10, 11, 12, 13, 14};
    CHECK(move_in(list, 10, 1, 0, 2) == 11);
    CHECK(move_in(list, 11, 1, 0, 2) == 12);
    CHECK(move_in(list, 10, 0, 1, 2) == 12);
    CHECK(move_in(list, 13, 0, 1, 2) == 13);
    CHECK(move_in(list, 14, 1, 0, 2) == 14);
    CHECK(move_in(list, 10, -1, 0, 2) == 10);
    CHECK(move_in(list, 99, 1, 0, 2) == 10);
    CHECK(move_in({}, 7, 1, 0, 2) == 7);
}

TEST_CASE("workers deliver on the owner's thread, urgent work first, and drop what was cancelled") {
    Workers workers(1);
    const auto owner = std::this_thread::get_id();
    std::atomic<bool> go{false};
    std::vector<int> order;
    bool right_thread = true;
    workers.post(Priority::urgent, Ticket(), [&]() -> Workers::Delivery {
        while (!go) std::this_thread::yield();
        return {};
    });
    Ticket cancelled;
    const auto note = [&](int number) {
        return [&, number]() -> Workers::Delivery {
            return [&, number] {
                right_thread = right_thread && std::this_thread::get_id() == owner;
                order.push_back(number);
            };
        };
    };
    workers.post(Priority::idle, Ticket(), note(3));
    workers.post(Priority::normal, Ticket(), note(2));
    workers.post(Priority::normal, cancelled, note(9));
    workers.post(Priority::urgent, Ticket(), note(1));
    workers.post(Priority::urgent, Ticket(), []() -> Workers::Delivery { throw std::runtime_error("work failed"); });
    cancelled.cancel();
    CHECK(workers.pending() == 6);
    CHECK_FALSE(workers.drain(0.02));
    go = true;
    REQUIRE(workers.drain(10.0));
    CHECK(order == std::vector<int>{1, 2, 3});
    CHECK(right_thread);
}

TEST_CASE("workers end while work waits") {
    std::atomic<int> ran{0};
    {
        Workers workers(2);
        for (int i = 0; i < 1000; ++i) {
            workers.post(Priority::idle, Ticket(), [&ran]() -> Workers::Delivery {
                ++ran;
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
                return {};
            });
        }
    }
    CHECK(ran < 1000);
}
