// Problems of attention, run by the emulated kernels.
#pragma once

#include <functional>
#include <vector>

#include "call_params.h"
#include "emulated_launch.h"
#include "paro/cuda/launch.h"

namespace paro {

using Launch = std::function<void(const cuda::AttentionParams&)>;

// As Problem::run, on the emulated GPU.
inline Tensor run_emulated(const Problem& problem, cuda::Precision precision, const Launch& launch,
                           std::int32_t* broken = nullptr) {
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v');
    Tensor o = problem.tensor();
    const Plan plan = problem.plan();
    const std::vector<std::int32_t> blob = plan_words(plan);
    cuda::AttentionParams p{};
    p.precision = precision;
    p.tail = problem.tail;
    describe(p, problem, q, k);
    REQUIRE(cuda::plan_layout(p).count() == static_cast<std::int64_t>(blob.size()));
    cuda::place_plan(p, blob.data());
    // Poisoned: what is read without having been written shows.
    std::vector<unsigned char> queries(cuda::query_bytes(p), 0xff), keys(cuda::key_bytes(p), 0xff);
    cuda::place_queries(p, queries.data());
    cuda::place_keys(p, keys.data());
    p.v = view_of(v);
    p.o = {o.data(), o.stride_b, o.stride_h, o.stride_n};
    p.broken = broken;
    if (precision == cuda::Precision::int8) cuda::launch_pack_int8(p, nullptr);
    launch(p);
    return o;
}
inline Tensor run_emulated(const Problem& problem, cuda::Precision precision, cuda::Path path = cuda::Path::portable,
                           std::int32_t* broken = nullptr) {
    return run_emulated(
        problem, precision, [=](const cuda::AttentionParams& p) { cuda::launch_attention(p, path, nullptr); }, broken);
}

struct Shape {
    TokenLayout layout;
    std::int32_t block_q, block_kv, head_dim;
    double density;
    bool tail;
    DType dtype;
};

inline Problem make(const Shape& shape) {
    Problem problem = problem_of(shape);
    problem.density = shape.density;
    problem.tail = shape.tail;
    return problem;
}

// Ragged ends everywhere, prefix and suffix, every block size, more than 64 blocks once (two panels of pooled keys).
inline const std::vector<Shape> kShapes = {
    {{0, {4, 8, 8}, 0}, 64, 64, 128, 1.0, false, DType::bf16},
    {{0, {4, 8, 9}, 0}, 64, 64, 64, 0.4, false, DType::bf16},
    {{10, {5, 7, 9}, 0}, 64, 64, 128, 0.4, true, DType::f16},
    {{0, {5, 7, 9}, 70}, 128, 128, 64, 0.5, true, DType::f32},
    {{3, {4, 11, 13}, 5}, 128, 128, 128, 0.4, true, DType::bf16},
    {{0, {3, 9, 13}, 0}, 64, 128, 64, 0.6, true, DType::bf16},
    {{65, {3, 9, 13}, 0}, 128, 64, 128, 0.5, true, DType::f16},
    {{0, {9, 22, 22}, 0}, 64, 64, 64, 0.08, true, DType::bf16},
};

}  // namespace paro
