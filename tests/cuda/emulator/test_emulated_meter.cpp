// The meter's kernels, run on a CPU, against both outputs in fp64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "observe_problem.h"

namespace paro {
namespace {

struct Reading {
    double retained = 0.0, error = 0.0;
};

std::vector<Reading> meter(const Sampled& sampled, const std::vector<std::int32_t>& places, bool outputs = true) {
    const Problem& problem = sampled.problem;
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v');
    const Plan plan = problem.plan();
    const std::vector<std::int32_t> blob = plan_words(plan);
    cuda::MeterParams p{};
    p.sample = sampled.params(q, k, v, places);
    cuda::set_meter(p);
    p.outputs = outputs;
    if (!outputs) p.sample.base.v = {};
    cuda::place_plan(p.sample.base, blob.data());
    std::vector<unsigned char> scratch(cuda::meter_bytes(p), 0xff);
    cuda::place_meter(p, scratch.data());
    std::vector<float> out(static_cast<std::size_t>(2 * problem.heads), -1.0f);
    p.out = reinterpret_cast<float2*>(out.data());
    cuda::launch_meter(p, nullptr);
    std::vector<Reading> result;
    for (std::int32_t h = 0; h < problem.heads; ++h) result.push_back({out[2 * h], out[2 * h + 1]});
    return result;
}

// Grid key block, or -1, of each token as a head's order cuts them.
std::vector<std::int64_t> grid_blocks(const TokenLayout& layout, AxisOrder order, std::int32_t block) {
    const std::vector<std::int32_t> index = pack_index(layout, order, block);
    const BlockLayout blocks = block_layout(layout, block);
    std::vector<std::int64_t> result(static_cast<std::size_t>(layout.length()), -1);
    for (std::size_t place = 0; place < index.size(); ++place) {
        const auto at = static_cast<std::int64_t>(place) / block;
        if (index[place] >= 0 && blocks.is_grid_block(at)) result[index[place]] = at - blocks.first_grid_block();
    }
    return result;
}

// By definition: probabilities, weights of the plan, two outputs. `skip` leaves out a query.
std::vector<Reading> expected(const Sampled& sampled, const std::vector<std::int32_t>& places) {
    const Problem& problem = sampled.problem;
    const Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v');
    const Plan plan = problem.plan();
    const std::int64_t length = problem.layout.length();
    std::vector<Reading> result;
    for (std::int32_t h = 0; h < problem.heads; ++h) {
        const HeadPlan& head = plan.heads[h];
        const auto q_block = grid_blocks(problem.layout, head.order, problem.block_q);
        const auto k_block = grid_blocks(problem.layout, head.order, problem.block_kv);
        double inside = 0.0, grid = 0.0, error = 0.0, norm = 0.0;
        for (std::int32_t i = 0; i < sampled.queries; ++i) {
            const std::int32_t b = sampled.entry(i);
            const std::int64_t token = problem.layout.prefix + places[h * sampled.queries + i];
            const std::vector<double> s = sampled.scores(q, k, b, h, token), p = Sampled::softmax(s);
            const double top = *std::max_element(s.begin(), s.end());
            std::vector<double> mean(static_cast<std::size_t>(head.mask.cols())), count(mean.size());
            for (std::int64_t n = 0; n < length; ++n) {
                if (k_block[n] >= 0) mean[k_block[n]] += s[n], count[k_block[n]] += 1;
            }
            std::vector<double> weight, x(problem.head_dim), y(problem.head_dim);
            double total = 0.0;
            for (std::int64_t n = 0; n < length; ++n) {
                const std::int64_t block = k_block[n];
                const bool in = block < 0 || head.mask.get(q_block[token], block);
                if (block >= 0) grid += p[n], inside += in ? p[n] : 0.0;
                const double pooled = problem.tail && block >= 0 ? std::exp(mean[block] / count[block] - top) : 0.0;
                total += weight.emplace_back(in ? std::exp(s[n] - top) : pooled);
            }
            for (std::int64_t n = 0; n < length; ++n) {
                for (std::int32_t d = 0; d < problem.head_dim; ++d) {
                    x[d] += p[n] * v.get(v.at(b, h, n, d));
                    y[d] += weight[n] / total * v.get(v.at(b, h, n, d));
                }
            }
            for (std::int32_t d = 0; d < problem.head_dim; ++d) {
                error += (y[d] - x[d]) * (y[d] - x[d]);
                norm += x[d] * x[d];
            }
        }
        result.push_back({inside / grid, error / norm});
    }
    return result;
}

struct Case {
    TokenLayout layout;
    std::int32_t block_q, block_kv, head_dim, batch, queries;
    double density;
    bool tail;
    DType dtype;
};

const std::vector<Case> kCases = {
    {{0, {4, 8, 9}, 0}, 64, 64, 128, 1, 24, 0.4, false, DType::bf16},
    {{3, {5, 7, 9}, 5}, 64, 64, 64, 2, 17, 0.4, true, DType::f16},
    {{226, {1, 9, 13}, 0}, 128, 64, 64, 1, 66, 0.5, true, DType::bf16},
    {{0, {4, 9, 13}, 70}, 64, 128, 128, 1, 20, 0.5, true, DType::f16},
    {{10, {5, 7, 11}, 0}, 128, 128, 64, 3, 10, 0.4, false, DType::f16},
    {{0, {2, 3, 4}, 0}, 64, 64, 64, 1, 3, 0.4, true, DType::f16},
    {{0, {9, 22, 22}, 0}, 64, 64, 64, 1, 8, 0.1, true, DType::f16},
};

Sampled make(const Case& c) {
    Sampled sampled{observe_problem(c.layout, c.head_dim, c.dtype, c.batch, true), c.queries};
    sampled.problem.block_q = c.block_q, sampled.problem.block_kv = c.block_kv;
    sampled.problem.density = c.density;
    sampled.problem.tail = c.tail;
    return sampled;
}

}  // namespace

TEST_CASE("emulated meter reads what both outputs say") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases.size()));
    CAPTURE(index);
    const Sampled sampled = make(kCases[index]);
    const std::vector<std::int32_t> places = sampled.places();
    const std::vector<Reading> ours = meter(sampled, places), want = expected(sampled, places);
    for (std::size_t h = 0; h < ours.size(); ++h) {
        INFO("head " << h << ": " << ours[h].retained << " and " << want[h].retained << ", " << ours[h].error << " and "
                     << want[h].error);
        CHECK(std::fabs(ours[h].retained - want[h].retained) < 1e-5);
        CHECK(std::fabs(ours[h].error - want[h].error) <= 2e-3 * want[h].error + 1e-6);
    }
}

TEST_CASE("emulated meter without values reads the same mass") {
    const std::size_t index = GENERATE(std::size_t{1}, std::size_t{3});
    const Sampled sampled = make(kCases[index]);
    const std::vector<std::int32_t> places = sampled.places();
    const std::vector<Reading> mass = meter(sampled, places, false), all = meter(sampled, places);
    for (std::size_t h = 0; h < mass.size(); ++h) {
        CHECK(mass[h].retained == all[h].retained);
        CHECK(std::isnan(mass[h].error));
    }
}

TEST_CASE("emulated meter: all blocks lose nothing, and what is not finite is left out") {
    Case c = kCases[1];
    c.density = 1.0;
    Sampled sampled = make(c);
    std::vector<std::int32_t> places = sampled.places();
    for (const Reading& head : meter(sampled, places)) {
        CHECK(head.retained == 1.0);
        CHECK(head.error < 1e-12);
    }
    sampled.problem.density = 0.4;
    // One row of head 0 is bad: the reading is that of the others, as if each place stood for the next.
    places[2] = places[3];
    const std::vector<Reading> good = meter(sampled, places);
    const auto before = sampled.problem.shape;
    std::vector<std::int32_t> wrong = places;
    wrong[2] = 999;
    const std::vector<Reading> outside = meter(sampled, wrong);
    CHECK(std::isfinite(outside[0].error));
    CHECK(outside[0].error != good[0].error);
    CHECK(outside[1].error == good[1].error);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    sampled.problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'v' && bh % 2 == 0 && n == 40 && d == 9 ? nan : before(t, bh, n, d, x);
    };
    const std::vector<Reading> bad = meter(sampled, places);
    CHECK(std::isnan(bad[0].error));
    CHECK(std::isnan(bad[0].retained));
    CHECK(bad[1].error == good[1].error);
}

}  // namespace paro
