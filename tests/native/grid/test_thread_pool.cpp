#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

#include "expect_error.h"
#include "paro/thread_pool.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace paro;

namespace {

// Every index once, workers in range; returns false instead of asserting so that any thread may call it.
bool covers_every_index(std::int64_t count, int threads) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    std::atomic<bool> in_range{true};
    parallel_for(count, threads, [&](std::int64_t index, int worker) {
        ++seen[index];
        if (worker < 0 || worker >= resolve_threads(threads)) in_range = false;
    });
    for (const std::atomic<int>& times : seen) {
        if (times != 1) return false;
    }
    return in_range;
}

}  // namespace

TEST_CASE("thread pool: every index once, whatever the thread count", "[thread_pool]") {
    for (const int threads : {-1, 0, 1, 2, 3, 17}) {
        for (const std::int64_t count : {0, 1, 2, 1001}) CHECK(covers_every_index(count, threads));
    }
    CHECK(resolve_threads(5) == 5);
    CHECK(resolve_threads(0) >= 1);
    CHECK(resolve_threads(1 << 30) == 1024);
}

TEST_CASE("thread pool: a worker number is held by one thread at a time", "[thread_pool]") {
    std::vector<std::atomic<int>> busy(4);
    std::atomic<bool> shared{false};
    parallel_for(2000, 4, [&](std::int64_t, int worker) {
        if (++busy[worker] != 1) shared = true;
        std::this_thread::yield();
        --busy[worker];
    });
    CHECK_FALSE(shared);
}

TEST_CASE("thread pool: more than one thread works", "[thread_pool]") {
    // The first index waits for the second to be taken: on one thread this would never end.
    std::atomic<bool> second{false};
    parallel_for(2, 2, [&](std::int64_t index, int) {
        if (index == 1) second = true;
        while (!second) std::this_thread::yield();
    });
    CHECK(second);
}

TEST_CASE("thread pool: the first exception comes back and stops the rest", "[thread_pool]") {
    for (const int threads : {1, 4}) {
        std::atomic<std::int64_t> calls{0};
        const auto run = [&] {
            parallel_for(1'000'000, threads, [&](std::int64_t index, int) {
                ++calls;
                if (index == 10) throw std::runtime_error("index 10");
                std::this_thread::yield();
            });
        };
        CHECK_THROWS_WITH(run(), "index 10");
        CHECK(calls < 1'000'000);
        CHECK(covers_every_index(100, threads));
    }
}

TEST_CASE("thread pool: nested calls run inline", "[thread_pool]") {
    std::atomic<int> total{0}, elsewhere{0};
    parallel_for(8, 4, [&](std::int64_t, int) {
        const std::thread::id outer = std::this_thread::get_id();
        parallel_for(9, 4, [&](std::int64_t, int worker) {
            ++total;
            if (worker != 0 || std::this_thread::get_id() != outer) ++elsewhere;
        });
    });
    CHECK(total == 72);
    CHECK(elsewhere == 0);
}

TEST_CASE("thread pool: concurrent callers queue", "[thread_pool]") {
    std::atomic<int> good{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 6; ++i) {
        callers.emplace_back([&] {
            for (int turn = 0; turn < 50; ++turn) good += covers_every_index(37, 3);
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(good == 300);
}

TEST_CASE("thread pool: bad arguments are named", "[thread_pool]") {
    EXPECT_ERROR(parallel_for(-1, 2, [](std::int64_t, int) {}), "count");
    EXPECT_ERROR(parallel_for(3, 2, nullptr), "body");
}

// ThreadSanitizer refuses threads after a fork.
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__SANITIZE_THREAD__)
TEST_CASE("thread pool: a forked child works and exits", "[thread_pool]") {
    CHECK(covers_every_index(100, 3));
    // Other threads keep the pool's mutexes busy while the process forks.
    std::atomic<bool> stop{false};
    std::thread busy([&] {
        while (!stop) covers_every_index(50, 3);
    });
    for (int i = 0; i < 5; ++i) {
        const pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            alarm(20);  // a deadlock ends as a signal, not as a hung test
            _exit(covers_every_index(100, 3) ? 0 : 1);
        }
        int status = -1;
        REQUIRE(waitpid(child, &status, 0) == child);
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    stop = true;
    busy.join();
    CHECK(covers_every_index(100, 3));
}
#endif
