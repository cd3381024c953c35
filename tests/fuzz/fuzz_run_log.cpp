// Run logs, and what the viewer computes of them.
#include "document/files/run_log.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace paro::viewer;
    const fuzz::Budget budget;
    const RunLog log = parse_run_log(fuzz::text_of(data, size));
    fuzz::check((log.skipped > 0) == !log.first_problem.empty(), "a skipped line must be told");
    fuzz::check(log.newest("aa") < static_cast<int>(log.runs.size()), "the newest run must be one of the log's");
    for (const Run& run : log.runs) {
        fuzz::check(run.steps >= 0 && run.steps <= 100000, "steps must be bounded");
        fuzz::check(run.layers.size() <= run.lines.size(), "a layer must have a line");
        fuzz::check(run.sparse_calls() >= 0 && run.dense_calls() >= 0, "calls must not be negative");
        for (const RunLine& line : run.lines) {
            fuzz::check(line.step < run.steps, "a step must be below the run's steps");
            fuzz::check(line.head_retained.empty() || line.head_retained.size() == line.heads.size(),
                        "shares must be of heads");
        }
        if (!run.lines.empty()) fuzz::check(run.at(run.lines.back().layer, run.lines.back().step) != nullptr, "a line");
        run.title();
        const TimeModel time = fit_time(log, run);
        time.seconds(run.density_total, run.tail, run.block_kv);
    }
    return 0;
}
