// Output that is not finite: stored as it is, or as zeros and told.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <limits>
#include <vector>

#include "run_emulated.h"

namespace paro {
namespace {

struct Kernel {
    const char* name;
    cuda::Precision precision;
    cuda::Path path;
};
const std::vector<Kernel> kKernels = {
    {"portable int8", cuda::Precision::int8, cuda::Path::portable},
    {"hopper int8", cuda::Precision::int8, cuda::Path::hopper},
    {"bf16", cuda::Precision::bf16, cuda::Path::portable},
};
// Every dtype, head dim and tile, all but the largest.
const std::size_t kCases = kShapes.size() - 1;

const double kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// One value of v of the first head is `bad`.
Problem with_bad_value(const Shape& shape, double bad) {
    Problem problem = make(shape);
    problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'v' && bh == 0 && n == 20 && d == 9 ? bad : x;
    };
    return problem;
}

std::size_t not_finite(const std::vector<double>& values) {
    return static_cast<std::size_t>(
        std::count_if(values.begin(), values.end(), [](double x) { return !std::isfinite(x); }));
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (a[i] != b[i]) return false;
    }
    return a.size() == b.size();
}

// Rows of queries past the tokens would come out as NaN.
void poison_padding(const cuda::AttentionParams& p) {
    const cuda::BlockParams& blocks = p.q_blocks;
    for (std::int32_t tile = 0; tile < p.slots() * blocks.blocks(); ++tile) {
        for (std::int32_t row = p.layout.tokens_in(blocks, tile % blocks.blocks()); row < blocks.block; ++row) {
            p.packed.q_scale[std::int64_t{tile} * blocks.block + row] = std::numeric_limits<float>::quiet_NaN();
        }
    }
}

}  // namespace

TEST_CASE("emulated kernels store zeros for what is not finite, and tell") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases));
    const Kernel kernel = kKernels[GENERATE(range(std::size_t{0}, std::size_t{3}))];
    emulator::late_products = false;
    const double bad = std::vector{kNan, kInf, -kInf}[index % 3];
    const Problem problem = with_bad_value(kShapes[index], bad);
    if (kernel.precision == cuda::Precision::bf16 && problem.dtype == DType::f32) return;
    CAPTURE(index, kernel.name, bad);
    const std::vector<double> raw = problem.values(run_emulated(problem, kernel.precision, kernel.path));
    std::vector<double> mended = raw;
    for (double& x : mended) x = std::isfinite(x) ? x : 0.0;
    CHECK(not_finite(raw) > 0);
    // The other head's output has nothing to do with it.
    CHECK(not_finite(raw) <= raw.size() / 2);
    std::int32_t broken = 0;
    const auto ours = problem.values(run_emulated(problem, kernel.precision, kernel.path, &broken));
    CHECK(broken == 1);
    CHECK(same(ours, mended));
}

TEST_CASE("emulated kernels leave finite output and its flag alone, whatever is in padding") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases));
    const Kernel kernel = kKernels[GENERATE(range(std::size_t{0}, std::size_t{3}))];
    emulator::late_products = false;
    const Problem problem = make(kShapes[index]);
    if (kernel.precision == cuda::Precision::bf16 && problem.dtype == DType::f32) return;
    CAPTURE(index, kernel.name);
    const auto run = [&](std::int32_t* broken) {
        const auto launch = [&](const cuda::AttentionParams& p) {
            if (p.precision == cuda::Precision::int8) poison_padding(p);
            cuda::launch_attention(p, kernel.path, nullptr);
        };
        return problem.values(run_emulated(problem, kernel.precision, launch, broken));
    };
    const std::vector<double> raw = run(nullptr);
    CHECK(not_finite(raw) == 0);
    for (const std::int32_t before : {0, 1}) {  // what an earlier call has said stays
        std::int32_t broken = before;
        CHECK(same(run(&broken), raw));
        CHECK(broken == before);
    }
}

TEST_CASE("emulated int8 kernels tell of sums that fp16 does not hold") {
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper);
    const float size = GENERATE(3e4f, 3e5f);
    emulator::late_products = false;
    CAPTURE(static_cast<int>(path), size);
    Problem problem = make(kShapes[4]);
    problem.dtype = DType::f32;
    problem.shape = [=](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
        return t != 'v' ? x : d == 3 ? -size : size;
    };
    Problem half = problem;
    half.dtype = DType::f16;
    Tensor narrow = half.tensor();
    std::int32_t broken = 0;
    run_emulated(
        problem, cuda::Precision::int8,
        [&](cuda::AttentionParams p) {
            p.dtype = cuda::DType::f16;
            p.o = {narrow.data(), narrow.stride_b, narrow.stride_h, narrow.stride_n};
            cuda::launch_attention(p, path, nullptr);
        },
        &broken);
    const std::vector<double> ours = half.values(narrow);
    CHECK(broken == (size > 65504.0f));
    CHECK(not_finite(ours) == 0);
    CHECK(std::all_of(ours.begin(), ours.end(), [](double x) { return x == 0.0; }) == (size > 65504.0f));
}

}  // namespace paro
