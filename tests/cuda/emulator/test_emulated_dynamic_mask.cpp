// Masks found on the fly, run on a CPU, against fp64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <numeric>

#include "call_params.h"
#include "paro/cuda/dynamic_mask.h"

namespace paro {
namespace {

struct Found {
    std::vector<std::int32_t> schedule;
    std::vector<std::uint32_t> masks;
    std::int32_t rows, cols, words;

    bool get(std::int64_t head, std::int64_t row, std::int64_t col) const {
        return (masks[static_cast<std::size_t>((head * rows + row) * words + col / 32)] >> (col % 32)) & 1u;
    }
    std::int32_t count(std::int64_t head, std::int64_t row) const {
        std::int32_t blocks = 0;
        for (std::int64_t col = 0; col < words * 32; ++col) blocks += get(head, row, col);
        return blocks;
    }
};

Found find(const Problem& problem, const std::vector<float>& densities) {
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k');
    const std::vector<std::int32_t> blob = plan_words(problem.plan());
    cuda::DynamicMaskParams p{};
    cuda::AttentionParams& base = p.base;
    describe(base, problem, q, k);
    cuda::place_plan(base, blob.data());
    std::vector<unsigned char> scratch(cuda::dynamic_mask_bytes(p), 0xff);
    cuda::place_dynamic_mask(p, scratch.data());
    Found found;
    found.rows = base.q_blocks.grid_blocks, found.cols = base.kv_blocks.grid_blocks, found.words = base.plan.mask_words;
    const auto rows = static_cast<std::size_t>(problem.heads * found.rows);
    found.schedule.assign(rows, -1);
    found.masks.assign(rows * found.words, 0xffffffffu);
    p.densities = densities.data();
    p.schedule = found.schedule.data(), p.masks = found.masks.data();
    cuda::launch_dynamic_mask(p, nullptr);
    return found;
}

// Scores in double: [head][row][col].
std::vector<double> scores(const Problem& problem) {
    const Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k');
    const Plan plan = problem.plan();
    const auto means = [&](const Tensor& x, std::int32_t b, std::int32_t h, std::int32_t block,
                           std::vector<double>& tokens) {
        const TokenLayout grid{0, problem.layout.grid, 0};
        const std::vector<std::int32_t> index = pack_index(grid, plan.heads[h].order, block);
        std::vector<double> result(index.size() / block * problem.head_dim, 0.0);
        tokens.assign(index.size() / block, 0.0);
        for (std::size_t i = 0; i < index.size(); ++i) {
            if (index[i] < 0) continue;
            tokens[i / block] += 1;
            for (std::int32_t d = 0; d < problem.head_dim; ++d) {
                result[i / block * problem.head_dim + d] += x.get(x.at(b, h, problem.layout.prefix + index[i], d));
            }
        }
        for (std::size_t i = 0; i < result.size(); ++i) result[i] /= tokens[i / problem.head_dim];
        return result;
    };
    std::vector<double> result;
    for (std::int32_t h = 0; h < problem.heads; ++h) {
        std::vector<double> sum;
        for (std::int32_t b = 0; b < problem.batch; ++b) {
            std::vector<double> q_tokens, k_tokens;
            const std::vector<double> qs = means(q, b, h, problem.block_q, q_tokens);
            const std::vector<double> ks = means(k, b, h, problem.block_kv, k_tokens);
            sum.resize(q_tokens.size() * k_tokens.size(), 0.0);
            for (std::size_t row = 0; row < q_tokens.size(); ++row) {
                std::vector<double> s;
                for (std::size_t col = 0; col < k_tokens.size(); ++col) {
                    const auto q_row = qs.begin() + static_cast<std::int64_t>(row) * problem.head_dim;
                    const auto k_row = ks.begin() + static_cast<std::int64_t>(col) * problem.head_dim;
                    const double dot = std::inner_product(q_row, q_row + problem.head_dim, k_row, 0.0);
                    s.push_back(std::exp(dot / std::sqrt(problem.head_dim)) * k_tokens[col]);
                }
                const double total = std::accumulate(s.begin(), s.end(), 0.0);
                for (std::size_t col = 0; col < s.size(); ++col)
                    sum[row * s.size() + col] += s[col] / total / problem.batch;
            }
        }
        result.insert(result.end(), sum.begin(), sum.end());
    }
    return result;
}

struct Case {
    TokenLayout layout;
    std::int32_t block_q, block_kv, head_dim, batch;
    DType dtype;
};

const std::vector<Case> kCases = {
    {{0, {4, 8, 9}, 0}, 64, 64, 128, 1, DType::bf16},    {{3, {5, 7, 9}, 5}, 64, 128, 64, 2, DType::f16},
    {{226, {1, 29, 33}, 0}, 128, 64, 64, 1, DType::f32}, {{0, {2, 3, 4}, 0}, 64, 64, 128, 3, DType::bf16},
    {{7, {9, 22, 12}, 0}, 64, 64, 64, 1, DType::f16},
};

Problem make(const Case& c) {
    Problem problem = problem_of(c);
    problem.batch = c.batch;
    // Means of blocks differ, and all keys share a large channel.
    problem.shape = [](char t, std::int64_t, std::int64_t n, std::int32_t d, double x) {
        return x + (t == 'k' && d == 3 ? 20.0 : 2.0 * std::sin(0.05 * static_cast<double>(n) * (1 + d % 7)));
    };
    return problem;
}

}  // namespace

TEST_CASE("emulated dynamic masks keep the greatest blocks") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases.size()));
    CAPTURE(index);
    const Problem problem = make(kCases[index]);
    const std::vector<float> densities = {0.3f, 0.8f};
    const Found found = find(problem, densities);
    const std::vector<double> want = scores(problem);
    for (std::int32_t h = 0; h < problem.heads; ++h) {
        const std::int32_t count = std::max(1, static_cast<std::int32_t>(std::floor(densities[h] * found.cols + 0.5)));
        for (std::int32_t row = 0; row < found.rows; ++row) {
            const double* s = want.data() + (std::int64_t{h} * found.rows + row) * found.cols;
            double least = 2.0, most = -1.0;
            for (std::int32_t col = 0; col < found.words * 32; ++col) {
                const bool in = found.get(h, row, col);
                if (col >= found.cols) {
                    REQUIRE(!in);
                    continue;
                }
                if (in) least = std::min(least, s[col]);
                if (!in) most = std::max(most, s[col]);
            }
            // Within rounding no block outside is greater than one inside.
            REQUIRE(most <= least * (1 + 1e-3));
            REQUIRE(found.count(h, row) == count);
            // All rows are as long as each other.
            REQUIRE(found.schedule[h * found.rows + row] == row);
        }
    }
}

TEST_CASE("emulated dynamic masks: ties go to the left, all blocks, rows that are not finite") {
    Problem problem = make(kCases[4]);
    problem.shape = [](char, std::int64_t, std::int64_t, std::int32_t, double) { return 1.0; };
    const Found found = find(problem, {0.25f, 1.0f});
    // 2376 tokens: 37 blocks of 64 and one of 8; a quarter is 10 blocks.
    REQUIRE(found.cols == 38);
    CHECK(found.masks[0] == 0x3ffu);
    CHECK(found.masks[1] == 0u);
    CHECK(found.count(1, 0) == 38);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'k' && bh == 0 && n == 100 && d == 9 ? nan : x;
    };
    const Found counts = find(problem, {0.25f, 0.25f});
    CHECK(counts.masks[0] == 0x3ffu);
    CHECK(counts.count(1, 0) == 10);
}

TEST_CASE("emulated dynamic masks refuse rows that do not fit") {
    cuda::DynamicMaskParams p{};
    p.base.dtype = cuda::DType::f16;
    p.base.batch = p.base.heads = 1, p.base.head_dim = 64;
    p.base.sm_scale = 0.125f;
    cuda::set_sizes(p.base, {0, {1, 500, 500}, 0, 64, 64});
    CHECK_THROWS_WITH(cuda::launch_dynamic_mask(p, nullptr),
                      "grid must have at most 3612 key blocks where every call finds its masks; take larger tiles or "
                      "static masks (got 3907)");
}

}  // namespace paro
