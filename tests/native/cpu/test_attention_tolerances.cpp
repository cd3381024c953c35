// The tolerances themselves: honest rounding passes, mistakes that a kernel could make do not.
#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "test_attention_problem.h"

using namespace paro;
using tolerances::Data;
using tolerances::relative_error;

TEST_CASE("tolerances: relative_error", "[tolerances]") {
    CHECK(relative_error({1, 2, 3}, {1, 2, 3}) == 0.0);
    CHECK(relative_error({0, 0}, {3, 4}) == 1.0);
    CHECK(relative_error({3, 4.5}, {3, 4}) == 0.1);
    CHECK(relative_error({0.0}, {0.0}) == 0.0);
    const double infinity = std::numeric_limits<double>::infinity();
    CHECK(relative_error({1e-30}, {0.0}) == infinity);
    CHECK(relative_error({1, 2}, {1}) == infinity);
    CHECK(relative_error({std::numeric_limits<double>::quiet_NaN()}, {1}) == infinity);
    CHECK(relative_error({1}, {infinity}) == infinity);
}

TEST_CASE("tolerances: output rounding alone stays inside, and only just", "[tolerances]") {
    std::mt19937 random(3);
    std::normal_distribution<double> normal;
    for (const DType dtype : {DType::f16, DType::bf16}) {
        std::vector<double> exact, rounded;
        for (int i = 0; i < 20000; ++i) {
            exact.push_back(normal(random));
            rounded.push_back(decode_half(encode_half(exact.back(), dtype), dtype));
        }
        const double error = relative_error(rounded, exact);
        CHECK(error <= tolerances::output_rounding(dtype));
        CHECK(error >= 0.5 * tolerances::output_rounding(dtype));
        CHECK(error > tolerances::attention(Precision::fp32, DType::f32, Data::hard));
    }
}

TEST_CASE("tolerances: mistakes that kernels make are caught", "[tolerances]") {
    Problem p;
    p.layout = {0, {5, 8, 9}, 0};
    p.heads = 1;
    p.density = 0.5;
    p.tail = true;
    const auto expected = p.expected();
    const double loosest = tolerances::attention(Precision::int8, DType::bf16, Data::tripled);

    Problem wrong = p;
    wrong.tail = false;
    CHECK(relative_error(wrong.expected(), expected) > loosest);
    wrong = p;
    wrong.first_order = AxisOrder::WHF;
    CHECK(relative_error(wrong.expected(), expected) > loosest);
    wrong = p;
    wrong.density = 0.45;
    CHECK(relative_error(wrong.expected(), expected) > loosest);
    // One token's output left unwritten, or two swapped.
    auto spoiled = expected;
    for (int d = 0; d < 64; ++d) spoiled[100 * 64 + d] = 0.0;
    CHECK(relative_error(spoiled, expected) > tolerances::attention(Precision::int8, DType::bf16, Data::normal));
    spoiled = expected;
    std::swap_ranges(spoiled.begin(), spoiled.begin() + 64, spoiled.begin() + 64);
    CHECK(relative_error(spoiled, expected) > loosest);
}
