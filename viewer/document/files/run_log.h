// runlog.jsonl: what ran, why and when. Written by the package, one line per step and layer, a closing line per run.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "paro/axis_order.h"

namespace paro::viewer {

enum class Path : std::uint8_t { dense, observe, sparse, fallback };
inline constexpr std::array<Path, 4> kPaths = {Path::dense, Path::observe, Path::sparse, Path::fallback};
std::string_view to_string(Path path);
// What the path means, for people.
std::string_view explain(Path path);

struct RunLine {
    int step = 0;
    double sigma = 0.0;
    std::string layer;
    std::vector<int> heads;
    Path path = Path::dense;
    std::string reason;
    double density = 1.0;
    // None where masks were found on the fly and nothing was sampled.
    std::optional<double> retained;
    // Of the meter, measured on sampled queries: how far the layer's output is off, relative to it; and the mass that
    // the mask of each of `heads` keeps, empty where none was sampled.
    std::optional<double> error;
    std::vector<double> head_retained;
};

struct Run {
    std::string family, fingerprint;
    std::vector<RunLine> lines;
    std::vector<std::string> layers;  // in order of first appearance
    int steps = 0;                    // 1 + greatest step
    bool ended = false, ok = false;
    double seconds = 0.0, attention_seconds = 0.0, observe_seconds = 0.0;
    double density = 1.0, density_total = 1.0;
    std::string precision, mask, profile;
    bool tail = false;
    int block_q = 64, block_kv = 64;
    std::optional<Grid> grid;
    std::map<std::string, std::int64_t> paths, reasons;

    // Attention calls that our kernels ran, and all others.
    std::int64_t sparse_calls() const;
    std::int64_t dense_calls() const;
    // The last line of a layer at a step; null without one.
    const RunLine* at(std::string_view layer, int step) const;
    // "12 steps, 8 layers, sparse 64 %, 4.5 s"
    std::string title() const;
};

struct RunLog {
    std::vector<Run> runs;    // as in the file
    std::size_t skipped = 0;  // lines that are no run log lines, a half-written last one among them
    std::string first_problem;
    // The newest run of this model; the newest at all if none is; -1 for an empty log.
    int newest(std::string_view fingerprint) const;
};

// Throws Error naming the file if it cannot be read or exceeds 64 MB. Bad lines are counted, never fatal.
RunLog load_run_log(const std::filesystem::path& path);
RunLog parse_run_log(std::string_view text);

// How long attention takes at another density: seconds per dense and per sparse call, solved from the log's runs on
// one grid, scaled by the blocks that are computed.
struct TimeModel {
    bool known = false;                          // a finished run gave seconds; otherwise only shares of dense are told
    bool two_runs = false;                       // dense and sparse calls were told apart by runs of different mixtures
    double dense_call = 0.0, block_share = 0.0;  // seconds of a dense call; of a sparse one at share 1
    double attention_seconds = 0.0;              // of the run that is predicted
    std::int64_t dense_calls = 0, sparse_calls = 0;

    // Work of a sparse call against a dense one: computed blocks, and one pooled key per skipped block with tail.
    static double work(double density_total, bool tail, int block_kv);
    // Seconds of attention of the run if its sparse calls had this density.
    double seconds(double density_total, bool tail, int block_kv) const;
};
TimeModel fit_time(const RunLog& log, const Run& run);

}  // namespace paro::viewer
