// A random attention problem as the kernels' parameters.
#pragma once

#include <cmath>

#include "paro/cuda/launch.h"
#include "test_attention_problem.h"

namespace paro {

inline cuda::TensorParams view_of(Tensor& t) { return {t.data(), t.stride_b, t.stride_h, t.stride_n}; }

inline cuda::Sizes sizes_of(const Problem& problem) {
    const TokenLayout& layout = problem.layout;
    return {static_cast<std::int32_t>(layout.prefix),
            {layout.grid.f, layout.grid.h, layout.grid.w},
            static_cast<std::int32_t>(layout.suffix),
            problem.block_q,
            problem.block_kv};
}

// What cases of all emulated kernels have.
template <class Case>
Problem problem_of(const Case& c) {
    Problem problem;
    problem.layout = c.layout;
    problem.block_q = c.block_q, problem.block_kv = c.block_kv;
    problem.head_dim = c.head_dim;
    problem.dtype = c.dtype;
    problem.first_order = AxisOrder::HWF;
    return problem;
}

// Everything of q and k and what follows from their sizes; precision and tail must be there before.
inline void describe(cuda::AttentionParams& p, const Problem& problem, Tensor& q, Tensor& k) {
    p.dtype = static_cast<cuda::DType>(problem.dtype);
    p.batch = problem.batch, p.heads = problem.heads, p.head_dim = problem.head_dim;
    p.sm_scale = 1.0f / std::sqrt(static_cast<float>(problem.head_dim));
    cuda::set_sizes(p, sizes_of(problem));
    p.q = view_of(q), p.k = view_of(k);
}

}  // namespace paro
