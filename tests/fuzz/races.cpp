// What several threads share, for TSan: the pool, plan building beside attention, the viewer's workers and document.
// paro_races [SECONDS]: repeats all of it for that long; TSan ends the program at the first race.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <stdexcept>
#include <thread>

#include "document/document.h"
#include "paro/attention.h"
#include "paro/plan_builder.h"
#include "paro/profile_merge.h"
#include "paro/thread_pool.h"
#include "profile_samples.h"
#include "test_attention_problem.h"

namespace {

using namespace paro;
using namespace std::chrono_literals;

void check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
}

void together(int count, const std::function<void(int)>& body) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
    for (std::thread& thread : threads) thread.join();
}

const Profile& profile() {
    static const Profile made = samples::profile({3, 6, 8}, 4, 2, 2, Bins::even({3, 6, 8}));
    return made;
}

PlanRequest request() { return {0, {7, {3, 6, 8}, 20}, 64, 64, 0.4, 2, {}}; }

// Calls from several threads at once, some inside others, some that throw.
void pool(unsigned seed) {
    together(4, [seed](int number) {
        std::mt19937 random(seed + static_cast<unsigned>(number));
        for (int round = 0; round < 20; ++round) {
            const std::int64_t count = random() % 40;
            const int threads = static_cast<int>(random() % 5);
            std::atomic<std::int64_t> sum{0};
            parallel_for(count, threads,
                         [&](std::int64_t i, int) { parallel_for(3, 2, [&](std::int64_t, int) { sum += i; }); });
            check(sum == 3 * count * (count - 1) / 2, "every index must be handed out once");
            bool thrown = count == 0;
            try {
                parallel_for(count, threads, [&](std::int64_t i, int) {
                    if (i == count / 2) throw std::runtime_error("on purpose");
                });
            } catch (const std::runtime_error&) {
                thrown = true;
            }
            check(thrown, "an exception must come back");
        }
    });
}

// A builder that many ask, beside attention on the shared pool; cancelled and left half-way too.
void plans(unsigned seed) {
    std::vector<float> sums(2 * 9, 0.1f), counts(2 * 3, 4.0f);
    PlanRequest asked = request();
    asked.known.resize(profile().layers.size());
    asked.known[1] = {sums, counts, 8.0f, {}, 0.0f};
    PlanBuilder builder(profile(), asked);
    together(5, [&](int number) {
        std::mt19937 random(seed + static_cast<unsigned>(number));
        if (number == 4) {
            Problem problem;
            problem.layout = {5, {2, 4, 8}, 9};
            problem.precision = random() % 2 == 0 ? Precision::int8 : Precision::fp32;
            problem.tail = true;
            problem.density = 0.5;
            check(problem.error() <= problem.bound(), "attention must be its definition");
            return;
        }
        for (int round = 0; round < 12; ++round) {
            const std::size_t layer = random() % profile().layers.size();
            try {
                if (random() % 3 == 0) builder.wait(layer, 1ms);
                builder.progress();
                builder.ready(layer);
                builder.busy(layer);
                if (seed % 4 == 3 && number == 0 && round == 3) builder.cancel();
                check(builder.get(layer)->heads.size() == 2, "a plan must be of the layer's heads");
            } catch (const Error&) {
                check(seed % 4 == 3, "only a cancelled builder may refuse");
            }
        }
    });
}

// Profiles of one model merged and compared by several threads, which share the pool and spare memory.
void profiles(unsigned) {
    together(3, [](int) {
        const Profile merged = merge_profiles(profile(), profile(), 0.3, 2);
        check(merged.layers.size() == profile().layers.size(), "no layer may be lost");
        plan_layer(merged, {1, 0, request().layout, 64, 64, 0.3, 2});
    });
}

// The viewer: opens, computes, edits, saves and is closed while its workers are at work.
void viewer_document(unsigned seed) {
    using namespace paro::viewer;
    static const samples::Folder folder;
    const std::filesystem::path path = folder / "a.json", other = folder / "b.json";
    save_profile(profile(), path);
    save_profile(profile(), other);
    std::mt19937 random(seed);
    Workers workers(3);
    Document document(workers);
    document.open(path);
    check(workers.drain(60.0), "a profile must be opened");
    double now = 0.0;
    for (int round = 0; round < 30; ++round) {
        const std::size_t head = random() % document.head_count();
        switch (random() % 8) {
            case 0:
                document.select(head);
                break;
            case 1:
                document.set_density(Scope::all, 0.1 + 0.1 * static_cast<double>(random() % 8));
                break;
            case 2:
                document.set_order(kAxisOrders[random() % 6]);
                break;
            case 3:
                document.set_tile(random() % 2 == 0 ? 64 : 128);
                break;
            case 4:
                document.open_comparison(other);
                break;
            case 5:
                document.save_as(folder / "c.json");
                break;
            case 6:
                document.undo();
                break;
            default:
                document.open(random() % 2 == 0 ? path : other);
        }
        document.loading();
        document.update(now += 0.3);
    }
    if (seed % 2 == 0) check(workers.drain(60.0), "the workers must finish");
}

}  // namespace

int main(int count, char** arguments) {
    const double seconds = count > 1 ? std::atof(arguments[1]) : 10.0;
    const auto begun = std::chrono::steady_clock::now();
    const struct {
        const char* name;
        void (*run)(unsigned seed);
    } parts[] = {{"pool", pool}, {"plans", plans}, {"profiles", profiles}, {"document", viewer_document}};
    int rounds[std::size(parts)] = {};
    unsigned seed = 0;
    do {
        for (std::size_t i = 0; i < std::size(parts); ++i) {
            parts[i].run(seed);
            ++rounds[i];
        }
        ++seed;
    } while (std::chrono::steady_clock::now() - begun < std::chrono::duration<double>(seconds));
    for (std::size_t i = 0; i < std::size(parts); ++i)
        std::printf("%s: %d rounds without a race\n", parts[i].name, rounds[i]);
    return 0;
}
