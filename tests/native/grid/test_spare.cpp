// Memory that serves one user after another, on whichever thread.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <thread>
#include <vector>

#include "paro/spare.h"

using paro::Borrowed;
using paro::Spares;

TEST_CASE("Spares hand out what was given back", "[spare]") {
    Spares<std::vector<int>> spares;
    const int* first = nullptr;
    {
        Borrowed one(spares);
        (*one).assign(1000, 7);
        first = (*one).data();
    }
    Borrowed again(spares);
    REQUIRE((*again).size() == 1000);
    REQUIRE((*again).data() == first);
    // What is in use is nobody else's.
    Borrowed other(spares);
    REQUIRE((*other).empty());
}

TEST_CASE("Threads that end leave their spares to others", "[spare]") {
    Spares<std::vector<int>> spares;
    std::atomic<int> fresh{0}, shared{0};
    std::atomic<bool> busy{false};
    for (int round = 0; round < 50; ++round) {
        std::thread([&] {
            Borrowed mine(spares);
            shared += busy.exchange(true);
            fresh += (*mine).empty();
            (*mine).resize(64);
            busy = false;
        }).join();
    }
    REQUIRE(fresh == 1);
    REQUIRE(shared == 0);
}

TEST_CASE("Two threads never hold the same spare", "[spare]") {
    Spares<std::vector<int>> spares;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int id = 0; id < 4; ++id) {
        threads.emplace_back([&spares, &wrong, id] {
            for (int turn = 0; turn < 2000; ++turn) {
                Borrowed mine(spares);
                (*mine).assign(8, id);
                for (const int value : *mine) wrong += value != id;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(wrong == 0);
}
