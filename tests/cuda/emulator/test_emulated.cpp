// The CUDA kernels, run on a CPU, against the CPU attention and against fp64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <vector>

#include "hopper_variants.h"
#include "paro/cuda/launch.h"
#include "run_emulated.h"

namespace paro {

TEST_CASE("packing q, then k and v, gives the bytes of packing all at once") {
    const Problem problem = make(kShapes[4]);
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v');
    const Plan plan = problem.plan();
    const std::vector<std::int32_t> blob = plan_words(plan);
    std::vector<unsigned char> scratch[2][2];
    cuda::AttentionParams calls[2];
    for (int i = 0; i < 2; ++i) {
        cuda::AttentionParams& p = calls[i] = {};
        p.dtype = static_cast<cuda::DType>(problem.dtype);
        p.batch = problem.batch, p.heads = problem.heads, p.head_dim = problem.head_dim;
        p.sm_scale = 0.1f;
        p.tail = 1;
        cuda::set_sizes(p, {3, {4, 11, 13}, 5, problem.block_q, problem.block_kv});
        cuda::place_plan(p, blob.data());
        scratch[i][0].assign(cuda::query_bytes(p), 0xff);
        scratch[i][1].assign(cuda::key_bytes(p), 0xff);
        cuda::place_queries(p, scratch[i][0].data());
        cuda::place_keys(p, scratch[i][1].data());
        p.q = view_of(q), p.k = view_of(k), p.v = view_of(v);
        if (i == 0) {
            cuda::launch_pack_int8(p, nullptr);
        } else {
            cuda::launch_pack_queries_int8(p, nullptr);
            cuda::launch_pack_keys_int8(p, nullptr);
        }
    }
    const cuda::AttentionParams& p = calls[0];
    const auto same = [](const void* a, const void* b, std::int64_t bytes) {
        return std::memcmp(a, b, static_cast<std::size_t>(bytes)) == 0;
    };
    const std::int64_t keys = p.slots() * std::int64_t{p.key_tiles()};
    CHECK(same(p.packed.q, calls[1].packed.q, p.slots() * p.q_blocks.blocks() * p.q_tile()));
    CHECK(same(p.packed.k, calls[1].packed.k, keys * p.key_tile()));
    CHECK(same(p.packed.v, calls[1].packed.v, keys * p.key_tile()));
    CHECK(same(p.packed.kv_scale, calls[1].packed.kv_scale, keys * 8));
    // Within +-127, so that negation would be safe and scores stay below 2^22; values are 128 more than that.
    bool clean = true;
    for (std::int64_t i = 0; i < keys * p.key_tile(); ++i) clean = clean && p.packed.k[i] != -128 && p.packed.v[i] != 0;
    CHECK(clean);
}

TEST_CASE("emulated int8 kernels agree with the CPU's") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kShapes.size()));
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper, cuda::Path::narrow);
    if (path == cuda::Path::narrow && !(kShapes[index].head_dim == 128 && kShapes[index].block_q == 64)) return;
    emulator::late_products = path == cuda::Path::hopper && GENERATE(false, true);
    CAPTURE(index, static_cast<int>(path), emulator::late_products);
    Problem problem = make(kShapes[index]);
    problem.precision = Precision::int8;
    const std::vector<double> ours = problem.values(run_emulated(problem, cuda::Precision::int8, path));
    const double exact = tolerances::relative_error(ours, problem.expected());
    const double oracle = tolerances::relative_error(ours, problem.values(problem.run()));
    INFO("to fp64 " << exact << ", to the CPU's int8 " << oracle);
    CHECK(exact < problem.bound());
    // Weights are rounded per 64 keys here, per block there; the tail is in 8 bits here, in fp32 there.
    CHECK(oracle <
          (problem.tail || problem.block_kv == 128 ? 1e-2 : 2e-3) + tolerances::output_rounding(problem.dtype));
}

// The mean of two tokens is eight times as great as that of 128, if they are noise.
TEST_CASE("emulated int8 kernels: a last block of few tokens does not coarsen the means of the others") {
    struct Ragged {
        std::int32_t tokens, block;
        double density;
    };
    // Few tokens, one less than few, a few more; alone in the tile of pooled keys, beside others, first of a tile.
    const Ragged ragged =
        GENERATE(Ragged{130, 128, 0.3}, Ragged{65, 64, 0.3}, Ragged{386, 128, 0.2}, Ragged{449, 64, 0.15},
                 Ragged{400, 128, 0.2}, Ragged{401, 128, 0.2}, Ragged{456, 64, 0.15}, Ragged{457, 64, 0.15},
                 Ragged{416, 128, 0.2}, Ragged{4097, 64, 0.05}, Ragged{4161, 64, 0.05});
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper, cuda::Path::narrow);
    const std::int32_t head_dim = GENERATE(64, 128);
    if (path == cuda::Path::narrow && !(head_dim == 128 && ragged.block == 64)) return;
    emulator::late_products = false;
    CAPTURE(ragged.tokens, ragged.block, static_cast<int>(path), head_dim);
    Problem problem =
        make({{0, {ragged.tokens, 1, 1}, 0}, ragged.block, ragged.block, head_dim, ragged.density, true, DType::f32});
    problem.precision = Precision::int8;
    const std::vector<double> ours = problem.values(run_emulated(problem, cuda::Precision::int8, path));
    const double exact = tolerances::relative_error(ours, problem.expected());
    const double oracle = tolerances::relative_error(problem.values(problem.run()), problem.expected());
    INFO("to fp64 " << exact << ", of the CPU's int8 with its tail in fp32 " << oracle);
    CHECK(exact < 0.02);
}

// Instances that only the benchmark runs; every exponential as exact as 8 bits of weight ask for.
TEST_CASE("emulated variants of the Hopper kernel agree with the CPU") {
    const int head_dim = GENERATE(64, 128);
    const auto variants = cuda::bench::hopper_variants(head_dim);
    const cuda::bench::HopperVariant variant = variants[GENERATE_COPY(range(std::size_t{0}, variants.size()))];
    emulator::late_products = true;
    CAPTURE(head_dim, variant.name, variant.block_q, variant.block_kv);
    Problem problem = make({{3, {4, 11, 13}, 70}, variant.block_q, variant.block_kv, head_dim, 0.4, true, DType::f16});
    problem.precision = Precision::int8;
    const std::vector<double> ours =
        problem.values(run_emulated(problem, cuda::Precision::int8,
                                    [&](const cuda::AttentionParams& p) { cuda::bench::launch(variant, p, nullptr); }));
    INFO("to fp64 " << tolerances::relative_error(ours, problem.expected()));
    CHECK(tolerances::relative_error(ours, problem.expected()) < problem.bound());
    CHECK(tolerances::relative_error(ours, problem.values(problem.run())) < 1.2e-2);
    if (!variant.options.trace) return;
    cuda::bench::TraceSums sums;
    cuda::bench::take_trace(head_dim, &sums[0][0], nullptr);
    CHECK(sums[0][cuda::bench::kTraceNumbers - 1] > 0);
}

TEST_CASE("emulated bf16 kernels agree with fp64") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kShapes.size()));
    CAPTURE(index);
    Problem problem = make(kShapes[index]);
    if (problem.dtype == DType::f32) return;
    const std::vector<double> ours = problem.values(run_emulated(problem, cuda::Precision::bf16));
    const double exact = tolerances::relative_error(ours, problem.expected());
    INFO("to fp64 " << exact);
    CHECK(exact < (problem.dtype == DType::bf16 ? 4e-3 : 6e-4));
}

TEST_CASE("emulated int8 kernels: constant values, zeros, outliers, what is not finite") {
    Problem problem = make(kShapes[2]);
    problem.precision = Precision::int8;
    problem.dtype = DType::f32;
    const cuda::Path path = GENERATE(cuda::Path::portable, cuda::Path::hopper, cuda::Path::narrow);
    emulator::late_products = false;
    CAPTURE(static_cast<int>(path));
    const auto error = [&](auto shape) {
        problem.shape = shape;
        return tolerances::relative_error(problem.values(run_emulated(problem, cuda::Precision::int8, path)),
                                          problem.expected());
    };
    CHECK(error([](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
              return t == 'v' ? (d % 5 - 2) * 0.37 : 2 * x;
          }) < 5e-5);
    CHECK(error([](char, std::int64_t, std::int64_t, std::int32_t, double) { return 0.0; }) == 0.0);
    // The greatest sums there are, 255 * 255 * 128 < 2^23: more would not be subnormal numbers.
    CHECK(error([](char t, std::int64_t, std::int64_t, std::int32_t, double x) { return t == 'q' ? x : 1.0; }) < 5e-5);
    CHECK(error([](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
              return t == 'v' && d == 5 ? 20 * x : t == 'k' && d == 3 ? x + 10 : x;
          }) < 0.03);
    CHECK(error([](char t, std::int64_t, std::int64_t, std::int32_t, double x) {
              return t == 'v' ? 1e18 * x : t == 'k' ? 1e-18 * x : 1e18 * x;
          }) < 0.02);
    // Scores up to 1e4: the greatest weight may not wrap.
    problem.shape = [](char t, std::int64_t, std::int64_t, std::int32_t, double x) { return t == 'v' ? x : 35 * x; };
    double top = 0.0;
    for (const double x : problem.values(run_emulated(problem, cuda::Precision::int8, path))) {
        top = std::isfinite(x) ? std::max(top, std::fabs(x)) : 1e30;
    }
    CHECK(top > 1.0);
    CHECK(top < 10.0);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const char tensor : {'q', 'k', 'v'}) {
        CAPTURE(tensor);
        problem.density = 1.0;
        problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
            return t == tensor && bh == 0 && n == 100 && d == 9 ? nan : x;
        };
        const Tensor o = run_emulated(problem, cuda::Precision::int8, path);
        CHECK(std::isnan(o.get(o.at(0, 0, 100, 9))));
        CHECK(std::isfinite(o.get(o.at(0, 1, 100, 9))));
    }
}

}  // namespace paro
