// From profiles to plans: any profile, layout, tile, density and what else is known.
#include "fuzz_values.h"
#include "paro/plan_words.h"
#include "paro/profile_plan.h"

namespace {

struct Memory {
    std::vector<float> sums, counts;
    std::vector<std::uint8_t> cells;
};

paro::KnownBlocks known(fuzz::Bytes& bytes, std::size_t heads, const paro::Grid& grid, std::int32_t block_q,
                        std::int32_t block_kv, Memory& memory) {
    paro::KnownBlocks out;
    const std::int64_t rows = (grid.size() + block_q - 1) / block_q, cols = (grid.size() + block_kv - 1) / block_kv;
    if (bytes.ConsumeBool()) {
        // Now and then one too many.
        const std::size_t more = bytes.ConsumeIntegral<std::uint8_t>() == 7 ? 1 : 0;
        for (std::size_t i = 0; i < heads * static_cast<std::size_t>(rows * cols) + more; ++i) {
            memory.sums.push_back(bytes.ConsumeFloatingPointInRange<float>(0.0f, 2.0f));
        }
        for (std::size_t i = 0; i < heads * static_cast<std::size_t>(rows); ++i) {
            memory.counts.push_back(static_cast<float>(fuzz::pick(bytes, 0, 3)));
        }
        out.sums = memory.sums;
        out.counts = memory.counts;
        out.prior = bytes.ConsumeFloatingPointInRange<float>(-0.1f, 64.0f);
    }
    if (bytes.ConsumeBool()) {
        const auto side = static_cast<std::size_t>(fuzz::pick(bytes, 1, 4));
        memory.cells = bytes.ConsumeBytes<std::uint8_t>(side * side);
        memory.cells.resize(side * side);
        out.exact.resize(heads);
        out.exact.front() = memory.cells;
        out.exact_prior = bytes.ConsumeFloatingPointInRange<float>(0.0f, 64.0f);
    }
    return out;
}

void check_plan(const paro::Plan& plan) {
    const paro::BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    std::vector<int> seen(plan.heads.size() * static_cast<std::size_t>(q.blocks()));
    for (const paro::Tile& tile : plan.schedule) {
        ++seen.at(static_cast<std::size_t>(tile.head * q.blocks() + tile.index));
    }
    for (const int count : seen) fuzz::check(count == 1, "a plan must visit each tile once");
    for (const paro::HeadPlan& head : plan.heads) {
        fuzz::check(head.mask.rows() == q.grid_blocks && head.mask.cols() == kv.grid_blocks, "a mask must fit");
        for (std::int64_t row = 0; row < head.mask.rows(); ++row) {
            fuzz::check(head.mask.row_count(row) > 0, "every tile must have a block");
        }
        const auto blocks = static_cast<double>(q.grid_blocks * kv.grid_blocks);
        fuzz::check(static_cast<double>(head.mask.count()) >= head.density * blocks - 0.5, "as many blocks as asked");
    }
    fuzz::check(static_cast<std::int64_t>(plan_words(plan).size()) == plan_layout(plan).count(), "words must fit");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Bytes bytes(data, size);
    const fuzz::Budget budget;
    const paro::Grid grid = fuzz::grid(bytes, 8);
    const auto shape = bytes.ConsumeIntegral<std::uint8_t>();
    paro::LayerRequest request;
    request.layer = static_cast<std::size_t>(fuzz::pick(bytes, 0, 3));
    request.group = static_cast<std::size_t>(fuzz::pick(bytes, 0, 2));
    request.layout = {fuzz::pick(bytes, 0, 70), bytes.ConsumeBool() ? grid : fuzz::grid(bytes, 8),
                      fuzz::pick(bytes, 0, 70)};
    request.block_q = bytes.ConsumeBool() ? 64 : fuzz::pick(bytes, 8, 130);
    request.block_kv = bytes.ConsumeBool() ? 64 : fuzz::pick(bytes, 8, 130);
    request.density = bytes.ConsumeFloatingPointInRange<double>(-0.1, 1.1);
    request.threads = 1;
    const paro::Profile profile = fuzz::profile(bytes, shape, grid);
    Memory memory;
    const paro::KnownBlocks what = known(bytes, static_cast<std::size_t>(profile.model.heads), request.layout.grid,
                                         request.block_q, request.block_kv, memory);
    fuzz::accepted([&] { check_plan(paro::plan_layer(profile, request, what)); });
    return 0;
}
