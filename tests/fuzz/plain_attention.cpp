#include "plain_attention.h"

namespace fuzz {

using namespace paro;

double attention_error(const Problem& problem, const Plan& plan, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& o) {
    std::vector<double> expected;
    const std::vector<double> dq = problem.values(q), dk = problem.values(k), dv = problem.values(v);
    const auto span = static_cast<std::ptrdiff_t>(problem.layout.length() * problem.head_dim);
    for (std::int32_t bh = 0; bh < problem.batch * problem.heads; ++bh) {
        const auto part = [&](const std::vector<double>& from) {
            return std::vector<double>(from.begin() + bh * span, from.begin() + (bh + 1) * span);
        };
        const auto head = reference::attention(plan, bh % problem.heads, problem.head_dim, part(dq), part(dk), part(dv),
                                               1.0 / std::sqrt(problem.head_dim), problem.tail);
        expected.insert(expected.end(), head.begin(), head.end());
    }
    return tolerances::relative_error(problem.values(o), expected);
}

Tensor tensor(const Problem& problem, std::uint32_t name) {
    static const std::vector<double> normal = [] {
        std::mt19937 random(1);
        std::normal_distribution<double> draw;
        std::vector<double> values(8191);
        for (double& value : values) value = draw(random);
        return values;
    }();
    Tensor out = problem.tensor();
    const std::int64_t count = std::int64_t{problem.batch} * problem.heads * problem.layout.length() * problem.head_dim;
    std::size_t at = problem.seed * 61u + name * 2311u;
    for (std::int64_t i = 0; i < count; ++i) out.set(i, normal[at++ % normal.size()]);
    return out;
}

}  // namespace fuzz
