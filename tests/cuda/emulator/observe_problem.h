// Sampled queries of a random attention problem, and what the emulated kernels are held against.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "call_params.h"
#include "paro/cuda/observe.h"
#include "paro/offset_kernel.h"

namespace paro {

struct Sampled {
    Problem problem;
    std::int32_t queries = 24;

    std::vector<std::int32_t> places() const {
        std::mt19937 random(problem.seed + 77u);
        std::vector<std::int32_t> result;
        for (std::int32_t i = 0; i < problem.heads * queries; ++i) {
            result.push_back(static_cast<std::int32_t>(random() % problem.layout.grid.size()));
        }
        return result;
    }
    std::int32_t entry(std::int32_t query) const { return query * problem.batch / queries; }

    // Softmax of a query over all keys in double: scores and probabilities, tokens in original order.
    std::vector<double> scores(const Tensor& q, const Tensor& k, std::int32_t b, std::int32_t h,
                               std::int64_t token) const {
        std::vector<double> s;
        for (std::int64_t n = 0; n < problem.layout.length(); ++n) {
            double sum = 0.0;
            for (std::int32_t d = 0; d < problem.head_dim; ++d)
                sum += q.get(q.at(b, h, token, d)) * k.get(k.at(b, h, n, d));
            s.push_back(sum / std::sqrt(static_cast<double>(problem.head_dim)));
        }
        return s;
    }
    static std::vector<double> softmax(const std::vector<double>& s) {
        const double top = *std::max_element(s.begin(), s.end());
        double total = 0.0;
        std::vector<double> p;
        for (const double x : s) total += p.emplace_back(std::exp(x - top));
        for (double& x : p) x /= total;
        return p;
    }

    // Of a call: base filled but for its plan.
    cuda::SampleParams params(Tensor& q, Tensor& k, Tensor& v, const std::vector<std::int32_t>& at) const {
        cuda::SampleParams p{};
        cuda::AttentionParams& base = p.base;
        base.tail = problem.tail;
        describe(base, problem, q, k);
        base.v = view_of(v);
        p.queries = queries;
        p.places = at.data();
        cuda::set_samples(p, sizes_of(problem));
        return p;
    }
};

inline Problem observe_problem(const TokenLayout& layout, std::int32_t head_dim, DType dtype, std::int32_t batch,
                               bool interleaved) {
    Problem problem;
    problem.layout = layout;
    problem.head_dim = head_dim;
    problem.dtype = dtype;
    problem.batch = batch;
    problem.interleaved = interleaved;
    problem.first_order = AxisOrder::HWF;
    // Scores with a spread of two: some keys matter, most do not.
    problem.shape = [](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
        return t == 'q' ? 2 * x : t == 'k' && d == 3 ? x + 5 : x;
    };
    return problem;
}

}  // namespace paro
