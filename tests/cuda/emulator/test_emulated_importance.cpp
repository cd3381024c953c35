// Exact importance, run on a CPU, against sums of fp64 rows.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "call_params.h"
#include "emulated_launch.h"
#include "observe_problem.h"
#include "paro/cuda/importance.h"

namespace paro {
namespace {

std::vector<float> importance_of(const Problem& problem, cuda::Path path = cuda::Path::portable) {
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k');
    const std::vector<std::int32_t> blob = plan_words(problem.plan());
    cuda::ImportanceParams p{};
    cuda::AttentionParams& base = p.base;
    describe(base, problem, q, k);
    p.orders = blob.data();  // which start with them
    cuda::set_importance(p, path, path == cuda::Path::hopper ? 90 : 80);
    std::vector<unsigned char> scratch(cuda::importance_bytes(p), 0xff);
    cuda::place_importance(p, scratch.data());
    const auto blocks = std::int64_t{base.q_blocks.grid_blocks} * base.kv_blocks.grid_blocks;
    std::vector<float> out(static_cast<std::size_t>(problem.batch * problem.heads * blocks), -1.0f);
    p.out = out.data();
    cuda::launch_importance(p, nullptr);
    return out;
}

struct Case {
    TokenLayout layout;
    std::int32_t head_dim, batch;
    DType dtype;
};

// An odd and an even number of query blocks, ragged ends, one block, text, more items than workers.
const std::vector<Case> kCases = {
    {{0, {4, 8, 9}, 0}, 128, 1, DType::bf16},   {{3, {5, 7, 9}, 5}, 64, 2, DType::f16},
    {{226, {1, 9, 13}, 0}, 64, 1, DType::bf16}, {{0, {2, 3, 4}, 70}, 128, 1, DType::f16},
    {{0, {3, 19, 17}, 1}, 64, 1, DType::f16},
};

}  // namespace

TEST_CASE("emulated importance is the sum of exact rows") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases.size()));
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper);
    emulator::late_products = path == cuda::Path::hopper && GENERATE(false, true);
    CAPTURE(index, static_cast<int>(path), emulator::late_products);
    const Case& c = kCases[index];
    const Sampled sampled{observe_problem(c.layout, c.head_dim, c.dtype, c.batch, true), 1};
    const Problem& problem = sampled.problem;
    const std::vector<float> ours = importance_of(problem, path);
    const Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k');
    const Plan plan = problem.plan();
    auto at = ours.begin();
    for (std::int32_t b = 0; b < c.batch; ++b) {
        for (std::int32_t h = 0; h < problem.heads; ++h) {
            BlockMap map = empty_map(c.layout.grid, plan.heads[h].order, 64, 64);
            for (std::int32_t place = 0; place < c.layout.grid.size(); ++place) {
                const std::vector<double> p = Sampled::softmax(sampled.scores(q, k, b, h, c.layout.prefix + place));
                const auto first = p.begin() + c.layout.prefix;
                const std::vector<float> row(first, first + c.layout.grid.size());
                accumulate_rows(map, c.layout.grid, std::vector<std::int32_t>{place}, row);
            }
            for (const float want : map.value) {
                REQUIRE(std::fabs(*at - want) <= 2e-4f * want + 1e-5f);
                ++at;
            }
        }
    }
    REQUIRE(at == ours.end());
}

TEST_CASE("emulated importance: scores that grow by hundreds of octaves") {
    // The first keys say nothing of the later ones, and most of what they say vanishes beside them.
    Problem problem = observe_problem({5, {4, 8, 9}, 0}, 64, DType::f16, 1, true);
    problem.first_order = AxisOrder::FHW;
    problem.shape = [](char t, std::int64_t, std::int64_t n, std::int32_t d, double x) {
        if (d > 0) return 0.1 * x;
        return t == 'q' ? 8.0 : (n < 150 ? -300.0 : n < 250 ? 100.0 : 200.0) + x;
    };
    const std::vector<float> out = importance_of(problem, GENERATE(cuda::Path::portable, cuda::Path::hopper));
    const std::size_t cols = 5;
    double early = 0.0, late = 0.0;
    for (std::size_t i = 0; i < out.size(); ++i) (i % cols < 3 ? early : late) += out[i];
    CHECK(early < 1e-6);
    CHECK(std::fabs(late - 2 * 288) < 1e-2);
}

TEST_CASE("emulated importance leaves out rows that are not finite") {
    Problem problem = observe_problem({0, {4, 8, 9}, 0}, 64, DType::f16, 1, true);
    problem.first_order = AxisOrder::FHW;
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper);
    const std::vector<float> good = importance_of(problem, path);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto before = problem.shape;
    problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'q' && bh == 0 && n == 70 && d == 9 ? nan : before(t, bh, n, d, x);
    };
    const std::vector<float> bad = importance_of(problem, path);
    const std::size_t cols = 5;
    double sum = 0.0;
    for (std::size_t i = 0; i < good.size(); ++i) {
        if (i / cols == 1) {
            sum += bad[i];
        } else {
            REQUIRE(bad[i] == good[i]);
        }
    }
    CHECK(std::fabs(sum - 63.0) < 1e-3);
}

TEST_CASE("emulated importance refuses what it cannot take") {
    Problem problem = observe_problem({0, {4, 8, 9}, 0}, 64, DType::f32, 1, true);
    CHECK_THROWS_WITH(importance_of(problem), "dtype must be float16 or bfloat16 for exact importance (got float32)");
    problem.dtype = DType::f16;
    problem.block_q = 128;
    CHECK_THROWS_WITH(importance_of(problem), "block_q must be 64 for exact importance (got 128)");
}

}  // namespace paro
