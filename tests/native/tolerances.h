// How far attention may stray from the fp64 reference, by precision, dtype and kind of data. One place for all tests;
// test_attention_tolerances.cpp shows that these bounds pass honest rounding and catch real mistakes.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "paro/attention.h"

namespace paro::tolerances {

enum class Data { normal, hard, tripled };

// |got - expected| / |expected| in the Frobenius norm; infinity if anything is not finite or sizes differ.
inline double relative_error(const std::vector<double>& got, const std::vector<double>& expected) {
    if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
    double difference = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        if (!std::isfinite(got[i]) || !std::isfinite(expected[i])) return std::numeric_limits<double>::infinity();
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    if (norm == 0.0) return difference == 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
    return std::sqrt(difference / norm);
}

// Rounding the output to its dtype alone: half a unit in the last place, about 0.4 of it in the mean square.
inline double output_rounding(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return 0.0;
        case DType::f16:
            return 0x1p-12;
        case DType::bf16:
            return 0x1p-9;
    }
    return 0.0;
}

// fp32 loses with the size of the scores: an error of one unit in the last place of a score of 100 is 1e-5 of its
// weight. int8: the bounds that the CUDA kernels are held to.
inline double attention(Precision precision, DType dtype, Data data) {
    const bool int8 = precision == Precision::int8;
    double bound = int8 ? 0.02 : 2e-6;
    if (data == Data::hard) bound = int8 ? 0.03 : 2e-5;
    if (data == Data::tripled) bound = int8 ? 0.04 : 5e-6;
    return bound + output_rounding(dtype);
}

// Between instruction sets. int8: the scores are the same integers, but fp32 rounding now and then moves a weight or a
// quantised input by one step.
inline double between_isas(Precision precision) { return precision == Precision::int8 ? 1e-3 : 1e-6; }

}  // namespace paro::tolerances
