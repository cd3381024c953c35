// Whether attention gave what its definition says. In a file of its own that is compiled without coverage: counting the
// comparisons of fp64 loops would take most of the time, and teach the fuzzer nothing.
#pragma once

#include "test_attention_problem.h"

namespace fuzz {

// How far o is off, as tolerances::relative_error tells it.
double attention_error(const paro::Problem& problem, const paro::Plan& plan, const paro::Tensor& q,
                       const paro::Tensor& k, const paro::Tensor& v, const paro::Tensor& o);

// Normal values from a table: drawing them would take longer than the attention.
paro::Tensor tensor(const paro::Problem& problem, std::uint32_t name);

}  // namespace fuzz
