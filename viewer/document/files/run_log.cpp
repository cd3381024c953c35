#include "document/files/run_log.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "document/files/utf8.h"
#include "paro/error.h"
#include "paro/text_encoding.h"

namespace paro::viewer {

namespace {

using Json = nlohmann::json;
constexpr std::uintmax_t kMaxBytes = 64u << 20;
constexpr std::size_t kMaxLine = 1u << 20;
// What a log of honest size never reaches. A line that needs more is bad; of runs the oldest are left out.
constexpr std::size_t kMaxRuns = 10'000, kMaxLayers = 4096;
constexpr std::int64_t kMaxCalls = 1'000'000'000'000;  // of one kind: sums of them stay far from overflow
constexpr int kMaxDepth = 8;

double number(const Json& line, const char* key, double otherwise) {
    const auto found = line.find(key);
    return found != line.end() && found->is_number() ? found->get<double>() : otherwise;
}

int whole(const Json& line, const char* key, int otherwise) {
    const double value = number(line, key, otherwise);
    return value >= -1e9 && value <= 1e9 ? static_cast<int>(value) : otherwise;
}

std::string text(const Json& line, const char* key) {
    const auto found = line.find(key);
    return found != line.end() && found->is_string() ? found->get<std::string>().substr(0, 4096) : std::string();
}

bool flag(const Json& line, const char* key) {
    const auto found = line.find(key);
    return found != line.end() && found->is_boolean() && found->get<bool>();
}

std::map<std::string, std::int64_t> counts(const Json& line, const char* key) {
    std::map<std::string, std::int64_t> out;
    const auto found = line.find(key);
    if (found == line.end() || !found->is_object()) return out;
    for (const auto& [name, value] : found->items()) {
        if (value.is_number_integer() && value >= 0 && value <= kMaxCalls)
            out[name.substr(0, 4096)] = value.get<std::int64_t>();
    }
    return out;
}

std::optional<Path> parse_path(const std::string& name) {
    for (const Path path : kPaths) {
        if (to_string(path) == name) return path;
    }
    return std::nullopt;
}

std::optional<Grid> parse_grid(const Json& line) {
    const auto found = line.find("grid");
    if (found == line.end() || !found->is_array() || found->size() != 3) return std::nullopt;
    std::int32_t side[3];
    for (std::size_t i = 0; i < 3; ++i) {
        const Json& value = (*found)[i];
        if (!value.is_number_integer() || value < 1 || value > (1 << 20)) return std::nullopt;
        side[i] = value.get<std::int32_t>();
    }
    return Grid{side[0], side[1], side[2]};
}

void read_summary(const Json& line, Run& run) {
    run.ended = true;
    run.ok = flag(line, "ok");
    run.seconds = number(line, "seconds", 0.0);
    run.attention_seconds = number(line, "attention_seconds", 0.0);
    run.observe_seconds = number(line, "observe_seconds", 0.0);
    run.density = number(line, "density", 1.0);
    run.density_total = number(line, "density_total", run.density);
    run.precision = text(line, "precision");
    run.mask = text(line, "mask");
    run.profile = text(line, "profile");
    run.tail = flag(line, "tail");
    run.block_q = whole(line, "block_q", 64);
    run.block_kv = whole(line, "block_kv", 64);
    run.steps = std::clamp(whole(line, "steps", run.steps), run.steps, 100000);
    run.grid = parse_grid(line);
    run.paths = counts(line, "paths");
    run.reasons = counts(line, "reasons");
}

// The run that lines belong to, and its layers to look up: a list of them would take a day for a hostile log.
struct Reading {
    RunLog& log;
    std::unordered_set<std::string> layers;

    Run& run() { return log.runs.back(); }
    void begin_run() {
        if (log.runs.size() >= kMaxRuns) log.runs.erase(log.runs.begin(), log.runs.begin() + kMaxRuns / 10);
        log.runs.emplace_back();
        layers.clear();
    }
};

bool read_call(const Json& line, Reading& reading) {
    Run& run = reading.run();
    const std::optional<Path> path = parse_path(text(line, "path"));
    const int step = whole(line, "step", -1);
    RunLine out;
    out.layer = text(line, "layer");
    if (!path || step < 0 || step >= 100000 || out.layer.empty()) return false;
    out.path = *path;
    out.step = step;
    out.sigma = number(line, "sigma", 0.0);
    out.reason = text(line, "reason");
    out.density = number(line, "density", 1.0);
    if (const auto kept = line.find("retained"); kept != line.end() && kept->is_number())
        out.retained = kept->get<double>();
    if (const auto error = line.find("error"); error != line.end() && error->is_number())
        out.error = error->get<double>();
    if (const auto heads = line.find("heads"); heads != line.end() && heads->is_array()) {
        for (const Json& head : *heads) {
            if (head.is_number_integer() && out.heads.size() < 4096) out.heads.push_back(head.get<int>());
        }
    }
    if (const auto kept = line.find("head_retained"); kept != line.end() && kept->is_array()) {
        for (const Json& share : *kept) {
            if (share.is_number() && out.head_retained.size() < 4096)
                out.head_retained.push_back(std::clamp(share.get<double>(), 0.0, 1.0));
        }
        // Which head a number is of cannot be told otherwise.
        if (out.head_retained.size() != out.heads.size()) out.head_retained.clear();
    }
    if (!reading.layers.contains(out.layer)) {
        if (run.layers.size() >= kMaxLayers) return false;
        reading.layers.insert(out.layer);
        run.layers.push_back(out.layer);
    }
    run.steps = std::max(run.steps, step + 1);
    run.lines.push_back(std::move(out));
    return true;
}

// Nothing for what is no JSON, or nests deeper than any line of a log.
Json parse_line(std::string_view raw) {
    struct TooDeep {};
    const auto shallow = [](int depth, Json::parse_event_t, Json&) {
        if (depth > kMaxDepth) throw TooDeep();
        return true;
    };
    try {
        return Json::parse(raw, shallow, false);
    } catch (const TooDeep&) {
        return nullptr;
    }
}

bool read_line(std::string_view raw, Reading& reading) {
    if (raw.size() > kMaxLine) return false;
    const Json line = parse_line(raw);
    if (!line.is_object()) return false;
    RunLog& log = reading.log;
    if (flag(line, "run")) {
        reading.begin_run();
        reading.run().family = text(line, "family");
        reading.run().fingerprint = text(line, "fingerprint");
        return true;
    }
    // A log whose beginning was rotated away starts in the middle of a run.
    if (log.runs.empty() || log.runs.back().ended) reading.begin_run();
    if (flag(line, "end")) {
        read_summary(line, reading.run());
        return true;
    }
    return read_call(line, reading);
}

}  // namespace

std::string_view to_string(Path path) {
    constexpr std::array<std::string_view, 4> kNames = {"dense", "observe", "sparse", "fallback"};
    return kNames[static_cast<std::size_t>(path)];
}

std::string_view explain(Path path) {
    constexpr std::array<std::string_view, 4> kTexts = {
        "the model's own attention, all blocks", "dense, and sampled queries were watched to learn the maps",
        "our kernel: only the blocks of the mask", "our kernel refused or failed, so the call ran dense"};
    return kTexts[static_cast<std::size_t>(path)];
}

std::int64_t Run::sparse_calls() const {
    const auto found = paths.find("sparse");
    return found == paths.end() ? 0 : found->second;
}

std::int64_t Run::dense_calls() const {
    std::int64_t count = 0;
    for (const auto& [name, calls] : paths) count += name == "sparse" ? 0 : calls;
    return count;
}

const RunLine* Run::at(std::string_view layer, int step) const {
    const auto found = std::find_if(lines.rbegin(), lines.rend(),
                                    [&](const RunLine& line) { return line.step == step && line.layer == layer; });
    return found == lines.rend() ? nullptr : &*found;
}

std::string Run::title() const {
    char out[160];
    const double calls = static_cast<double>(sparse_calls() + dense_calls());
    const double share = calls > 0 ? 100.0 * static_cast<double>(sparse_calls()) / calls : 0.0;
    if (!ended) return std::to_string(steps) + " steps, still running or cut off";
    std::snprintf(out, sizeof out, "%d steps, %zu layers, %.0f %% of calls sparse, %.1f s%s", steps, layers.size(),
                  share, seconds, ok ? "" : ", ended early");
    return out;
}

int RunLog::newest(std::string_view fingerprint) const {
    for (int i = static_cast<int>(runs.size()) - 1; i >= 0; --i) {
        if (runs[static_cast<std::size_t>(i)].fingerprint == fingerprint) return i;
    }
    return static_cast<int>(runs.size()) - 1;
}

RunLog parse_run_log(std::string_view text_of_file) {
    RunLog log;
    Reading reading{log, {}};
    std::size_t number_of_line = 0;
    for (std::size_t begin = 0; begin < text_of_file.size();) {
        const std::size_t end = std::min(text_of_file.find('\n', begin), text_of_file.size());
        const std::string_view raw = text_of_file.substr(begin, end - begin);
        begin = end + 1;
        ++number_of_line;
        if (raw.find_first_not_of(" \t\r") == std::string_view::npos || read_line(raw, reading)) continue;
        if (log.skipped++ == 0)
            log.first_problem = "line " + std::to_string(number_of_line) + " is not a line of a run log";
    }
    return log;
}

RunLog load_run_log(const std::filesystem::path& path) {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    require(!error && std::filesystem::is_regular_file(path, error), utf8(path), "must be a readable file",
            error ? error.message() : "another kind");
    require(size <= kMaxBytes, utf8(path), "must not exceed 64 MB", size);
    std::ifstream file(path, std::ios::binary);
    std::string text_of_file(static_cast<std::size_t>(size), '\0');
    file.read(text_of_file.data(), static_cast<std::streamsize>(size));
    text_of_file.resize(static_cast<std::size_t>(file.gcount()));
    const std::string_view wide = wide_encoding(text_of_file);
    require(wide.empty(), utf8(path), "must be saved as UTF-8", wide);
    return parse_run_log(text_of_file);
}

double TimeModel::work(double density_total, bool tail, int block_kv) {
    const double pooled = tail ? (1.0 - density_total) / std::max(1, block_kv) : 0.0;
    return density_total + pooled;
}

double TimeModel::seconds(double density_total, bool tail, int block_kv) const {
    return dense_call * static_cast<double>(dense_calls) +
           block_share * static_cast<double>(sparse_calls) * work(density_total, tail, block_kv);
}

TimeModel fit_time(const RunLog& log, const Run& run) {
    TimeModel model;
    model.dense_calls = run.dense_calls();
    model.sparse_calls = run.sparse_calls();
    model.attention_seconds = run.attention_seconds;
    if (!run.ended || run.attention_seconds <= 0.0 || model.dense_calls + model.sparse_calls == 0) return model;
    const double n_dense = static_cast<double>(model.dense_calls), n_sparse = static_cast<double>(model.sparse_calls);
    const double done = n_sparse * TimeModel::work(run.density_total, run.tail, run.block_kv);
    model.known = true;
    // A run of the same model and grid without a sparse call tells what a dense one costs.
    for (const Run& other : log.runs) {
        const bool dense = other.ended && other.ok && other.sparse_calls() == 0 && other.dense_calls() > 0;
        if (!dense || other.grid != run.grid || other.fingerprint != run.fingerprint) continue;
        if (other.attention_seconds <= 0.0) continue;
        model.dense_call = other.attention_seconds / static_cast<double>(other.dense_calls());
        const double left = run.attention_seconds - model.dense_call * n_dense;
        if (done > 0.0 && left > 0.0) {
            model.block_share = left / done;
            model.two_runs = true;
        }
    }
    if (!model.two_runs) {
        // One run alone: a computed block costs the same in both kinds of call.
        model.dense_call = run.attention_seconds / (n_dense + done);
        model.block_share = model.dense_call;
    }
    return model;
}

}  // namespace paro::viewer
