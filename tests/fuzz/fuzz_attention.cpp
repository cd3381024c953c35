// Plans made of bytes, run by the CPU kernel and by fp64 from the definition; and broken ones, which must be refused.
#include "fuzz_values.h"
#include "plain_attention.h"

namespace {

using namespace paro;

BlockMask mask(fuzz::Bytes& bytes, std::int64_t rows, std::int64_t cols) {
    BlockMask out(rows, cols);
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < cols; ++c) out.set(r, c, bytes.ConsumeBool());
        if (out.row_count(r) == 0) out.set(r, fuzz::pick(bytes, 0, static_cast<std::int32_t>(cols) - 1));
    }
    return out;
}

Plan plan(fuzz::Bytes& bytes, const Problem& problem) {
    const BlockLayout q = block_layout(problem.layout, problem.block_q),
                      kv = block_layout(problem.layout, problem.block_kv);
    std::vector<HeadPlan> heads;
    for (std::int32_t h = 0; h < problem.heads; ++h) {
        heads.push_back({fuzz::order(bytes), mask(bytes, q.grid_blocks, kv.grid_blocks), 1.0, 1.0});
    }
    return make_plan(problem.layout, problem.block_q, problem.block_kv, std::move(heads));
}

Problem problem(fuzz::Bytes& bytes) {
    Problem out;
    out.layout = {fuzz::pick(bytes, 0, 18), fuzz::grid(bytes, 4), fuzz::pick(bytes, 0, 18)};
    out.block_q = 16 * fuzz::pick(bytes, 1, 4);
    out.block_kv = 16 * fuzz::pick(bytes, 1, 4);
    out.batch = fuzz::pick(bytes, 1, 2);
    out.heads = 3 - out.batch;
    out.head_dim = bytes.ConsumeBool() ? 64 : 128;
    out.tail = bytes.ConsumeBool();
    out.interleaved = bytes.ConsumeBool();
    out.dtype = static_cast<DType>(fuzz::pick(bytes, 0, 2));
    out.precision = static_cast<Precision>(fuzz::pick(bytes, 0, 1));
    out.threads = 1;
    out.seed = bytes.ConsumeIntegral<std::uint8_t>();
    return out;
}

// Where a plan or an argument is wrong nothing may be read or written.
void try_broken(fuzz::Bytes& bytes, AttentionParams params, Plan plan) {
    params.plan = &plan;
    switch (fuzz::pick(bytes, 0, 7)) {
        case 0:
            plan.schedule[0].index = bytes.ConsumeIntegral<std::int32_t>();
            break;
        case 1:
            plan.schedule.pop_back();
            break;
        case 2:
            plan.heads[0].mask = BlockMask(fuzz::pick(bytes, 0, 9), fuzz::pick(bytes, 0, 9));
            break;
        case 3:
            plan.block_kv = bytes.ConsumeIntegral<std::int32_t>();
            break;
        case 4:
            // One that could still fit its block would be the caller's lie about the tensors.
            plan.layout.suffix = bytes.ConsumeBool() ? INT64_MAX - bytes.ConsumeIntegral<std::uint8_t>() : -1;
            break;
        case 5:
            params.head_dim = bytes.ConsumeIntegral<std::int32_t>() | 1;
            break;
        case 6:
            params.heads = bytes.ConsumeIntegral<std::int32_t>();
            break;
        default:
            params.q.stride_n = fuzz::pick(bytes, -200, 63);
            break;
    }
    fuzz::accepted([&] { attention_cpu(params); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::vector<Isa> isas = available_isas();
    fuzz::Bytes bytes(data, size);
    const Problem one = problem(bytes);
    const ScopedIsa isa(
        isas[static_cast<std::size_t>(fuzz::pick(bytes, 0, static_cast<std::int32_t>(isas.size()) - 1))]);
    const Plan made = plan(bytes, one);
    Tensor q = fuzz::tensor(one, 0), k = fuzz::tensor(one, 1), v = fuzz::tensor(one, 2), o = one.tensor();
    {
        const fuzz::Budget budget;
        if (bytes.ConsumeIntegral<std::uint8_t>() < 32) {
            try_broken(bytes, one.params(q, k, v, o, made), made);
            return 0;
        }
        attention_cpu(one.params(q, k, v, o, made));
    }
    fuzz::check(fuzz::attention_error(one, made, q, k, v, o) <= one.bound(), "attention must be its definition");
    return 0;
}
