// The kernels on a GPU without torch: the chip's own rates, packing, and every variant of the attention kernels on the
// shapes of `python -m paroattention bench attention`, right before they are timed.
//
//     bench_kernels [--rates] [--pack] [--check] [--time] [--trace] [--shape NAME] [--density X] [--only TEXT]
//                   [--state FILE] [--seconds N]
//
// All parts where none is named. A kernel that fails or hangs ends the program with status 3; started again with the
// same
// --state FILE it goes on behind it and leaves that kernel out.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "hopper_variants.h"
#include "launch_kernel.h"
#include "paro/cuda/launch.h"
#include "problem.h"
#include "rates.h"
#include "runtime.h"

namespace paro::cuda::bench {
namespace {

using Launch = std::function<void(const AttentionParams&)>;

// A kernel for one head_dim and tile.
struct Candidate {
    std::string name;
    int head_dim, block_q, block_kv;
    bool trace;
    Launch launch;
    std::string key() const {
        return std::to_string(head_dim) + " " + std::to_string(block_q) + "x" + std::to_string(block_kv) + " " + name;
    }
};

std::vector<Candidate> kernels(int head_dim) {
    std::vector<Candidate> all;
    for (const HopperVariant& v : hopper_variants(head_dim)) {
        all.push_back({v.name, head_dim, v.block_q, v.block_kv, v.options.trace,
                       [&v](const AttentionParams& p) { bench::launch(v, p, nullptr); }});
    }
    for (const int q : {128, 64}) {
        for (const int kv : {128, 64}) {
            const auto launch = [](const AttentionParams& p) { launch_attention_portable_int8(p, nullptr); };
            all.push_back({"portable", head_dim, q, kv, false, launch});
        }
    }
    return all;
}

struct Options {
    bool rates = false, pack = false, check = false, time = false, trace = false;
    std::vector<std::string> shapes;
    std::vector<double> densities;
    std::string only, state;
    int seconds = 500;
};

// What the whole call may take, by density.
constexpr double kDensities[] = {1.0, 0.5, 0.3, 0.2, 0.1};
const std::map<std::string, std::vector<double>> kTargets = {{"wan1.3b-480p", {6.6, 3.4, 2.1, 1.5, 0.95}},
                                                             {"cogvideox-5b", {12.5, 6.0, 3.7, 2.6, 1.7}},
                                                             {"wan14b-720p", {31, 16, 9.5, 6.4, 3.5}},
                                                             {"flux-1024", {0.43, 0.33, 0.25, 0.22, 0.2}}};

class Bench {
   public:
    explicit Bench(const Options& options) : options_(options), watchdog_(options.state, options.seconds) {
        bench::check(cudaEventCreate(&begin_), "cudaEventCreate");
        bench::check(cudaEventCreate(&end_), "cudaEventCreate");
    }

    void run() {
        if (options_.rates) measure_rates(watchdog_);
        if (options_.check) {
            for (const int head_dim : {128, 64}) check_all(head_dim);
        }
        for (const int i : {0, 1, 3, 2}) {
            const Shape& shape = kShapes[i];
            const auto& wanted = options_.shapes;
            if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), shape.name) == wanted.end()) continue;
            if (!options_.pack && !options_.time && !options_.trace) continue;
            Tensors tensors(shape);
            watchdog_.wait(20.0);
            if (options_.pack) time_pack(shape, tensors);
            if (options_.time) time_attention(shape, tensors);
            if (options_.trace) trace_attention(shape, tensors);
        }
    }

   private:
    bool wanted(const Candidate& kernel) const {
        return options_.only.empty() || kernel.key().find(options_.only) != std::string::npos;
    }

    // Small, ragged, more work items than CTAs; with the tail at density .4, and dense.
    void check_all(int head_dim) {
        const Shape shape{"check", 3, 16, {3, 13, 17}, 10, 70, head_dim};
        Tensors tensors(shape);
        watchdog_.wait(20.0);
        for (const Candidate& kernel : kernels(head_dim)) {
            if (!wanted(kernel) || !watchdog_.step("check " + kernel.key(), kernel.key())) continue;
            std::string verdict;
            bool good = true;
            for (const bool tail : {true, false}) {
                const Problem problem(shape, tensors, kernel.block_q, kernel.block_kv, tail ? 0.4 : 1.0, tail);
                std::uint64_t sums[2];
                for (std::uint64_t& sum : sums) {
                    poison(tensors);
                    launch_pack_int8(problem.params, nullptr);
                    kernel.launch(problem.params);
                    watchdog_.wait(2.0);
                    sum = checksum(tensors);
                }
                const double error = problem.error(48);
                good = good && error < 0.025 && sums[0] == sums[1];
                char text[64];
                std::snprintf(text, sizeof(text), " %s %.4f%s", tail ? "tail" : "dense", error,
                              sums[0] == sums[1] ? "" : " BITS DIFFER");
                verdict += text;
            }
            std::printf("check %-30s%s%s\n", kernel.key().c_str(), verdict.c_str(), good ? "" : "  WRONG");
            std::fflush(stdout);
        }
    }

    // Milliseconds of a launch: the median of groups of at least 3 ms.
    double time(const std::function<void()>& launch) {
        const auto group = [&](int count) {
            bench::check(cudaEventRecord(begin_), "cudaEventRecord");
            for (int i = 0; i < count; ++i) launch();
            bench::check(cudaEventRecord(end_), "cudaEventRecord");
            return double{watchdog_.elapsed(begin_, end_, 5.0)} / count;
        };
        group(1);
        const int count = std::clamp(static_cast<int>(3.0 / group(1)), 1, 50);
        std::vector<double> all(5);
        for (double& ms : all) ms = group(count);
        std::nth_element(all.begin(), all.begin() + 2, all.end());
        return all[2];
    }

    void time_pack(const Shape& shape, Tensors& tensors) {
        for (const int block : {128, 64}) {
            for (const bool tail : {false, true}) {
                for (const int order : {3, 0}) {
                    char name[80];
                    std::snprintf(name, sizeof(name), "pack %s %d%s %s", shape.name, block, tail ? " tail" : "",
                                  order ? "HWF" : "FHW");
                    if (!watchdog_.step(name)) continue;
                    const Problem problem(shape, tensors, block, block, 1.0, tail, order);
                    const AttentionParams& p = problem.params;
                    const double all = time([&] { launch_pack_int8(p, nullptr); });
                    const double queries = time([&] { launch_pack_queries_int8(p, nullptr); });
                    const double keys = time([&] { launch_pack_keys_int8(p, nullptr); });
                    // q and k once, v twice; 8 bits of each written.
                    const double moved = double(tensors.bytes) * (4.0 + 1.5);
                    std::printf("%-34s %7.3f ms %6.0f GB/s; queries %.3f, keys %.3f\n", name, all, 1e-6 * moved / all,
                                queries, keys);
                    if (block == 128 && !tail && order) pack_ms_[shape.name] = all;
                }
            }
        }
        std::fflush(stdout);
    }

    const std::vector<double>& densities() const {
        static const std::vector<double> all(std::begin(kDensities), std::end(kDensities));
        return options_.densities.empty() ? all : options_.densities;
    }

    void time_attention(const Shape& shape, Tensors& tensors) {
        const std::vector<Candidate> all = kernels(shape.head_dim);
        std::map<std::string, std::string> lines;
        for (const double density : densities()) {
            double best = INFINITY;
            std::string which;
            for (const auto& [q, kv] : {std::pair{128, 128}, {128, 64}, {64, 128}, {64, 64}}) {
                const Problem problem(shape, tensors, q, kv, density, false);
                launch_pack_int8(problem.params, nullptr);
                watchdog_.wait(5.0);
                for (const Candidate& kernel : all) {
                    const bool fits = kernel.block_q == q && kernel.block_kv == kv && wanted(kernel) && !kernel.trace;
                    const bool portable = kernel.name == "portable";
                    if (!fits || (portable && (density != 1.0 && density != 0.3))) continue;
                    char name[120];
                    std::snprintf(name, sizeof(name), "time %s %.1f %s", shape.name, density, kernel.key().c_str());
                    if (!watchdog_.step(name, kernel.key())) continue;
                    const double ms = time([&] { kernel.launch(problem.params); });
                    const double clocks = ms * kGHz * 1e6 * multiprocessors() / static_cast<double>(problem.tiles());
                    char text[64];
                    std::snprintf(text, sizeof(text), density == densities()[0] ? " %8.3f (%4.0f)" : " %7.3f", ms,
                                  clocks);
                    lines[kernel.key()] += text;
                    if (ms < best && !portable) best = ms, which = kernel.key();
                    if (density == densities()[0] && !(problem.error(4) < 0.025)) lines[kernel.key()] += " WRONG";
                }
            }
            best_[shape.name].push_back({density, best, which});
        }
        std::printf("time %s: ms at densities", shape.name);
        for (const double density : densities()) std::printf(" %.1f", density);
        std::printf("; (clocks a 64 x 64 tile of an SM at %.3f GHz)\n", kGHz);
        for (const auto& [key, line] : lines) std::printf("  %-28s%s\n", key.c_str(), line.c_str());
        const double pack = pack_ms_[shape.name];
        for (const Best& best : best_[shape.name]) {
            const auto at = std::find(std::begin(kDensities), std::end(kDensities), best.density);
            const double target = at == std::end(kDensities) ? 0.0 : kTargets.at(shape.name)[at - kDensities];
            std::printf("  best %.1f: %.3f + pack %.3f = %.3f ms, may take %.2f: %s\n", best.density, best.ms, pack,
                        best.ms + pack, target, best.name.c_str());
        }
        std::fflush(stdout);
    }

    // Where the clocks of a warpgroup's first warp go.
    void trace_attention(const Shape& shape, Tensors& tensors) {
        static const char* const names[] = {"start", "scores", "values", "softmax", "between"};
        for (const Candidate& kernel : kernels(shape.head_dim)) {
            if (!kernel.trace || !wanted(kernel)) continue;
            for (const double density : {1.0, 0.2}) {
                char name[120];
                std::snprintf(name, sizeof(name), "trace %s %.1f %s", shape.name, density, kernel.key().c_str());
                if (!watchdog_.step(name, kernel.key())) continue;
                const Problem problem(shape, tensors, kernel.block_q, kernel.block_kv, density, false);
                launch_pack_int8(problem.params, nullptr);
                TraceSums sums;
                const Device<std::byte> memory = allocate(sizeof(sums));
                auto* traced = reinterpret_cast<unsigned long long*>(memory.get());
                take_trace(shape.head_dim, traced, nullptr);
                bench::check(cudaEventRecord(begin_), name);
                kernel.launch(problem.params);
                bench::check(cudaEventRecord(end_), name);
                const double ms = watchdog_.elapsed(begin_, end_, 5.0);
                take_trace(shape.head_dim, traced, nullptr);
                bench::check(cudaMemcpy(sums, traced, sizeof(sums), cudaMemcpyDeviceToHost), name);
                for (int group = 0; group < kernel.block_q / 64; ++group) {
                    double all = 0.0;
                    for (int i = 0; i < kTraceNumbers - 1; ++i) all += double(sums[group][i]);
                    std::printf("%s group %d: %.0f clocks a step, %.2f GHz:", name, group,
                                all / double(sums[group][kTraceNumbers - 1]), 1e-6 * all / multiprocessors() / ms);
                    for (int i = 0; i < kTraceNumbers - 1; ++i) {
                        std::printf(" %s %.1f%%", names[i], 100.0 * double(sums[group][i]) / all);
                    }
                    std::printf("\n");
                }
            }
        }
        std::fflush(stdout);
    }

    struct Best {
        double density, ms;
        std::string name;
    };
    static constexpr double kGHz = 1.755;
    Options options_;
    Watchdog watchdog_;
    std::map<std::string, double> pack_ms_;
    std::map<std::string, std::vector<Best>> best_;
    cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

Options parse(int count, char** words) {
    Options o;
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        const auto value = [&] {
            require(i + 1 < count, word, "must be followed by a value", "nothing");
            return std::string(words[++i]);
        };
        if (word == "--rates") {
            o.rates = true;
        } else if (word == "--pack") {
            o.pack = true;
        } else if (word == "--check") {
            o.check = true;
        } else if (word == "--time") {
            o.time = true;
        } else if (word == "--trace") {
            o.trace = true;
        } else if (word == "--shape") {
            o.shapes.push_back(value());
        } else if (word == "--density") {
            o.densities.push_back(std::stod(value()));
        } else if (word == "--only") {
            o.only = value();
        } else if (word == "--state") {
            o.state = value();
        } else if (word == "--seconds") {
            o.seconds = std::stoi(value());
        } else {
            fail("arguments", "must be as the file's head says", word);
        }
    }
    if (!o.rates && !o.pack && !o.check && !o.time && !o.trace) {
        o.rates = o.pack = o.check = o.time = o.trace = true;
    }
    return o;
}

}  // namespace
}  // namespace paro::cuda::bench

int main(int count, char** words) {
    try {
        paro::cuda::bench::Bench(paro::cuda::bench::parse(count, words)).run();
    } catch (const std::exception& error) {
        std::printf("bench_kernels: %s\n", error.what());
        return 1;
    }
    return 0;
}
