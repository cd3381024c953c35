#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "expect_error.h"
#include "test_attention_problem.h"

using namespace paro;

namespace {

Problem mixed_problem(Precision precision, std::int32_t head_dim, DType dtype) {
    Problem p;
    p.layout = {37, {3, 7, 11}, 70};
    p.block_q = 48;
    p.block_kv = 80;
    p.heads = 3;
    p.batch = 2;
    p.head_dim = head_dim;
    p.density = 0.4;
    p.tail = true;
    p.precision = precision;
    p.dtype = dtype;
    return p;
}

}  // namespace

TEST_CASE("attention isa: the scalar unit is always there and names are stable", "[attention][isa]") {
    const auto isas = available_isas();
    REQUIRE(!isas.empty());
    CHECK(isas.front() == Isa::scalar);
    CHECK(active_isa() == isas.back());
    CHECK(to_string(Isa::scalar) == "scalar");
    CHECK(to_string(Isa::avx2) == "avx2");
    CHECK(to_string(Isa::avx512) == "avx512");
    CHECK(to_string(Isa::avx512_vnni) == "avx512_vnni");
}

TEST_CASE("attention isa: one that is missing is refused by name", "[attention][isa]") {
    const auto isas = available_isas();
    for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_vnni}) {
        if (std::find(isas.begin(), isas.end(), isa) == isas.end()) EXPECT_ERROR(set_isa(isa), "isa");
    }
    EXPECT_ERROR(set_isa(static_cast<Isa>(9)), "isa");
}

TEST_CASE("attention isa: all agree with scalar", "[attention][isa]") {
    for (const Precision precision : {Precision::fp32, Precision::int8}) {
        for (const std::int32_t head_dim : {64, 128}) {
            for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
                Problem p = mixed_problem(precision, head_dim, dtype);
                std::vector<double> scalar;
                {
                    const ScopedIsa scope(Isa::scalar);
                    scalar = p.values(p.run());
                }
                const auto expected = p.expected();
                for (const Isa isa : available_isas()) {
                    const ScopedIsa scope(isa);
                    INFO(to_string(isa) << ", head_dim " << head_dim << ", dtype " << static_cast<int>(dtype)
                                        << ", precision " << static_cast<int>(precision));
                    const auto got = p.values(p.run());
                    // Rounding to 16 bits may fall either way where fp32 results differ.
                    CHECK(tolerances::relative_error(got, scalar) <=
                          tolerances::between_isas(precision) + tolerances::output_rounding(dtype) / 4);
                    CHECK(tolerances::relative_error(got, expected) <= p.bound());
                }
            }
        }
    }
}

TEST_CASE("attention isa: the same bits from run to run and for any number of threads", "[attention][isa]") {
    for (const Isa isa : available_isas()) {
        const ScopedIsa scope(isa);
        for (const Precision precision : {Precision::fp32, Precision::int8}) {
            Problem p = mixed_problem(precision, 64, DType::f32);
            p.threads = 1;
            const auto once = p.run().bytes();
            INFO(to_string(isa) << ", precision " << static_cast<int>(precision));
            CHECK(p.run().bytes() == once);
            for (const int threads : {0, 2, 5}) {
                p.threads = threads;
                CHECK(p.run().bytes() == once);
            }
        }
    }
}

// One token a sequence: its weight is 1, so v must come out as it went in, whatever its bits.
TEST_CASE("attention isa: all 16-bit values survive the way through fp32", "[attention][isa]") {
    for (const Isa isa : available_isas()) {
        const ScopedIsa scope(isa);
        for (const DType dtype : {DType::f16, DType::bf16}) {
            Problem p;
            p.layout = {0, {1, 1, 1}, 0};
            p.batch = 1024;
            p.heads = 1;
            p.dtype = dtype;
            const Plan plan = p.plan();
            Tensor q = p.random_tensor('q'), k = p.random_tensor('k'), v = p.tensor(), o = p.tensor();
            for (int i = 0; i < 65536; ++i) v.set(i, decode_half(static_cast<std::uint16_t>(i), dtype));
            attention_cpu(p.params(q, k, v, o, plan));
            int wrong = 0;
            for (int i = 0; i < 65536; ++i) {
                const double in = v.get(i), out = o.get(i);
                if (!(in == out || (std::isnan(in) && std::isnan(out)))) ++wrong;
            }
            INFO(to_string(isa) << ", dtype " << static_cast<int>(dtype));
            CHECK(wrong == 0);
        }
    }
}

// Two equal keys: o is the mean of two neighbours, half way between representable values. Ties go to even.
TEST_CASE("attention isa: 16-bit results round to nearest, ties to even", "[attention][isa]") {
    for (const Isa isa : available_isas()) {
        const ScopedIsa scope(isa);
        for (const DType dtype : {DType::f16, DType::bf16}) {
            Problem p;
            p.layout = {0, {1, 1, 2}, 0};
            p.batch = 512;
            p.heads = 1;
            p.dtype = dtype;
            p.shape = [](char name, std::int64_t, std::int64_t, std::int32_t, double x) {
                return name == 'k' ? 1.0 : x;
            };
            const Plan plan = p.plan();
            Tensor q = p.random_tensor('q'), k = p.random_tensor('k'), v = p.tensor(), o = p.tensor();
            for (std::int64_t b = 0; b < p.batch; ++b) {
                for (std::int64_t d = 0; d < 64; ++d) {
                    const auto bits = static_cast<std::uint16_t>(b * 64 + d);
                    v.set(v.at(b, 0, 0, d), decode_half(bits, dtype));
                    v.set(v.at(b, 0, 1, d), decode_half(static_cast<std::uint16_t>(bits + 1), dtype));
                }
            }
            attention_cpu(p.params(q, k, v, o, plan));
            int wrong = 0;
            for (std::int64_t b = 0; b < p.batch; ++b) {
                for (std::int64_t d = 0; d < 64; ++d) {
                    const double x = v.get(v.at(b, 0, 0, d)), y = v.get(v.at(b, 0, 1, d));
                    // Below that fp32 holds no half way value, above that the sum overflows.
                    if (!std::isfinite(x) || !std::isfinite(y) || std::fabs(x) < 1e-37 || std::fabs(y) > 1e38) continue;
                    if (o.get(o.at(b, 0, 0, d)) != decode_half(encode_half((x + y) / 2, dtype), dtype)) ++wrong;
                }
            }
            INFO(to_string(isa) << ", dtype " << static_cast<int>(dtype));
            CHECK(wrong == 0);
        }
    }
}
