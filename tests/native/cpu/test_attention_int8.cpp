// INT8 where it is hard. The bounds are those that the CUDA kernels are held to (tolerances.h).
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "test_attention_problem.h"

using namespace paro;
using tolerances::Data;

namespace {

using Shape = std::function<double(char, std::int64_t, std::int64_t, std::int32_t, double)>;

struct HardCase {
    const char* name;
    Data data;
    Shape shape;
    std::int32_t heads = 2;
};

const HardCase kHardCases[] = {
    {"key channel offset by ten standard deviations", Data::hard,
     [](char t, std::int64_t, std::int64_t, std::int32_t d, double x) { return t == 'k' && d == 3 ? x + 10 : x; }},
    {"value channels with outliers", Data::hard,
     [](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
         return t != 'v' ? x : d == 5 ? 20 * x : d == 40 ? 8 * x : x;
     }},
    {"value tokens twenty times the rest", Data::hard,
     [](char t, std::int64_t, std::int64_t n, std::int32_t, double x) {
         return t == 'v' && (n == 77 || n == 1234) ? 20 * x : x;
     }},
    {"a run of value tokens twenty times the rest", Data::hard,
     [](char t, std::int64_t, std::int64_t n, std::int32_t, double x) {
         return t == 'v' && n >= 400 && n < 430 ? 20 * x : x;
     }},
    {"one value a hundred times the rest", Data::hard,
     [](char t, std::int64_t, std::int64_t n, std::int32_t d, double x) {
         return t == 'v' && n == 333 && d == 4 ? 100 * x : x;
     }},
    {"one channel of q and k forty times the rest", Data::hard,
     [](char t, std::int64_t, std::int64_t, std::int32_t d, double x) { return t != 'v' && d == 7 ? 40 * x : x; },
     // Its softmax has one key or two: heads whose two best keys nearly tie decide the error, even that of fp32.
     8},
    {"one dominant key", Data::hard,
     [](char t, std::int64_t, std::int64_t n, std::int32_t, double x) { return t == 'k' && n == 100 ? 30 * x : x; }},
    {"all keys equal", Data::hard,
     [](char t, std::int64_t, std::int64_t, std::int32_t d, double x) { return t == 'k' ? 0.1 * d - 2 : x; }},
    {"q and k tripled", Data::tripled,
     [](char t, std::int64_t, std::int64_t, std::int32_t, double x) { return t != 'v' ? 3 * x : x; }},
};

Problem hard_problem(const Shape& shape) {
    Problem p;
    p.layout = {0, {5, 13, 21}, 0};
    p.heads = 2;
    p.shape = shape;
    return p;
}

}  // namespace

TEST_CASE("attention int8: hard data", "[attention][int8]") {
    for (const HardCase& hard : kHardCases) {
        for (const std::int32_t head_dim : {64, 128}) {
            Problem p = hard_problem(hard.shape);
            p.head_dim = head_dim;
            p.heads = hard.heads;
            const auto expected = p.expected();
            for (const Precision precision : {Precision::fp32, Precision::int8}) {
                p.precision = precision;
                const double error = tolerances::relative_error(p.values(p.run()), expected);
                INFO(hard.name << ", head_dim " << head_dim << ", "
                               << (precision == Precision::int8 ? "int8" : "fp32"));
                CHECK(error <= p.bound(hard.data));
            }
        }
    }
}

TEST_CASE("attention int8: a constant v comes out as it went in", "[attention][int8]") {
    Problem p = hard_problem([](char t, std::int64_t, std::int64_t, std::int32_t d, double x) {
        return t == 'v' ? (d % 5 - 2) * 0.37 : 2 * x;
    });
    p.precision = Precision::int8;
    p.density = 0.4;
    for (const bool tail : {false, true}) {
        p.tail = tail;
        CHECK(p.error() <= 1e-6);
    }
}

TEST_CASE("attention: scores up to 1e4 stay finite", "[attention][int8]") {
    for (const Precision precision : {Precision::fp32, Precision::int8}) {
        Problem p = hard_problem(
            [](char t, std::int64_t, std::int64_t, std::int32_t, double x) { return t == 'v' ? x : 35 * x; });
        p.layout = {3, {2, 9, 11}, 0};
        p.precision = precision;
        p.density = 0.5;
        p.tail = true;
        const auto got = p.values(p.run());
        double top = 0.0;
        for (const double x : got) top = std::isfinite(x) ? std::max(top, std::fabs(x)) : 1e30;
        CHECK(top > 1.0);
        CHECK(top < 10.0);  // a mean of values, whose greatest is below 6
    }
}

TEST_CASE("attention: zeros everywhere give zeros", "[attention][int8]") {
    for (const Precision precision : {Precision::fp32, Precision::int8}) {
        Problem p = hard_problem([](char, std::int64_t, std::int64_t, std::int32_t, double) { return 0.0; });
        p.layout = {3, {2, 9, 11}, 0};
        p.precision = precision;
        CHECK(p.error() == 0.0);
    }
}

// Tiny and huge values: scales that could underflow or overflow.
TEST_CASE("attention: magnitudes from 1e-20 to 1e18 keep their precision", "[attention][int8]") {
    for (const Precision precision : {Precision::fp32, Precision::int8}) {
        for (const double size : {1e-20, 1e-8, 1e8, 1e18}) {
            Problem p = hard_problem([size](char t, std::int64_t, std::int64_t, std::int32_t, double x) {
                return t == 'v' ? size * x : t == 'k' ? x / size : size * x;
            });
            p.layout = {3, {2, 9, 11}, 0};
            p.precision = precision;
            p.tail = true;
            p.density = 0.5;
            INFO("size " << size << ", precision " << static_cast<int>(precision));
            CHECK(p.error() <= p.bound());
        }
    }
}

// Whether a query of the first head at or after `token` has an output that is not finite. In fp32 an infinite key gives
// scores of minus infinity too, for which a weight of 0 is right: some other query shows it.
bool shows(const Problem& p, const Tensor& o, std::int64_t token) {
    for (std::int64_t n = token; n < p.layout.length(); ++n) {
        if (!std::isfinite(o.get(o.at(0, 0, n, 9)))) return true;
    }
    return false;
}

// A NaN or an infinity may not crash, and must show where it matters: hiding it would hide a broken model.
TEST_CASE("attention: what is not finite shows in the output of the queries that see it", "[attention][int8]") {
    const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
    for (const Isa isa : available_isas()) {
        const ScopedIsa scope(isa);
        for (const Precision precision : {Precision::fp32, Precision::int8}) {
            for (const char tensor : {'q', 'k', 'v'}) {
                for (const double bad : {nan, inf, -inf}) {
                    Problem p = hard_problem([=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
                        return t == tensor && bh == 0 && n == 100 && d == 9 ? bad : x;
                    });
                    p.layout = {0, {2, 9, 11}, 5};
                    p.precision = precision;
                    const Tensor o = p.run();
                    INFO(to_string(isa) << ", precision " << static_cast<int>(precision) << ", " << tensor << " "
                                        << bad);
                    CHECK(shows(p, o, 100));
                    // The other head is none of its business.
                    CHECK(std::isfinite(o.get(o.at(0, 1, 100, 9))));
                    if (tensor == 'q') CHECK(std::isfinite(o.get(o.at(0, 0, 101, 9))));
                }
            }
        }
    }
}
