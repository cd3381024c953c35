#include <catch2/catch_test_macros.hpp>
#include <string>

#include "test_attention_problem.h"

using namespace paro;

namespace {

struct NamedLayout {
    const char* name;
    TokenLayout layout;
};

// Lengths that are no multiple of any block, one frame, text on either side, one block, one token.
const NamedLayout kLayouts[] = {
    {"grid 3x7x9", {0, {3, 7, 9}, 0}},
    {"226 prefix, grid 4x5x9", {226, {4, 5, 9}, 0}},
    {"image 1x17x13", {0, {1, 17, 13}, 0}},
    {"suffix 33, grid 2x9x11", {0, {2, 9, 11}, 33}},
    {"1 prefix, 70 suffix", {1, {5, 6, 7}, 70}},
    {"one block", {0, {1, 4, 8}, 0}},
    {"one token", {0, {1, 1, 1}, 0}},
    {"even 4x8x8", {64, {4, 8, 8}, 64}},
};

struct TileSize {
    std::int32_t block_q, block_kv;
};
const TileSize kTiles[] = {{64, 64}, {128, 64}, {64, 128}, {128, 128}, {16, 16}, {48, 80}, {256, 256}};

}  // namespace

TEST_CASE("attention: fp32 and int8 meet the fp64 reference at every layout, tile and density", "[attention]") {
    for (const NamedLayout& named : kLayouts) {
        for (const TileSize& tile : kTiles) {
            for (const double density : {1.0, 0.3}) {
                for (const bool tail : {false, true}) {
                    Problem p;
                    p.layout = named.layout;
                    p.block_q = tile.block_q;
                    p.block_kv = tile.block_kv;
                    p.density = density;
                    p.tail = tail;
                    p.head_dim = tile.block_q == 64 ? 128 : 64;
                    const auto expected = p.expected();
                    for (const Precision precision : {Precision::fp32, Precision::int8}) {
                        p.precision = precision;
                        INFO(named.name << ", tile " << tile.block_q << "x" << tile.block_kv << ", density " << density
                                        << ", tail " << tail << ", "
                                        << (precision == Precision::int8 ? "int8" : "fp32"));
                        CHECK(tolerances::relative_error(p.values(p.run()), expected) <= p.bound());
                    }
                }
            }
        }
    }
}

TEST_CASE("attention: every order, both head sizes, batches and memory layouts", "[attention]") {
    for (const AxisOrder order : kAxisOrders) {
        for (const std::int32_t head_dim : {64, 128}) {
            for (const bool interleaved : {false, true}) {
                Problem p;
                p.layout = {20, {3, 5, 14}, 7};
                p.first_order = order;
                p.head_dim = head_dim;
                p.interleaved = interleaved;
                p.batch = 2;
                p.heads = 3;
                p.density = 0.4;
                p.tail = true;
                INFO(to_string(order) << ", head_dim " << head_dim << ", interleaved " << interleaved);
                CHECK(p.error() <= p.bound());
                p.precision = Precision::int8;
                CHECK(p.error() <= p.bound());
            }
        }
    }
}

TEST_CASE("attention: f16 and bf16 in and out", "[attention]") {
    for (const DType dtype : {DType::f16, DType::bf16}) {
        for (const Precision precision : {Precision::fp32, Precision::int8}) {
            Problem p;
            p.layout = {13, {3, 7, 9}, 0};
            p.dtype = dtype;
            p.precision = precision;
            p.density = 0.5;
            p.tail = true;
            INFO("dtype " << static_cast<int>(dtype) << ", precision " << static_cast<int>(precision));
            CHECK(p.error() <= p.bound());
        }
    }
}

TEST_CASE("attention: sm_scale is taken, and 1 / sqrt(head_dim) by default", "[attention]") {
    Problem p;
    const Plan plan = p.plan();
    Tensor q = p.random_tensor('q'), k = p.random_tensor('k'), v = p.random_tensor('v'), o = p.tensor();
    AttentionParams params = p.params(q, k, v, o, plan);
    params.sm_scale = 0.125f;
    attention_cpu(params);
    const auto given = o.bytes();
    CHECK(tolerances::relative_error(p.values(o), p.expected()) <= p.bound());
    params.sm_scale = -1.0f;
    attention_cpu(params);
    CHECK(o.bytes() == given);
    // With a vanishing scale every key weighs the same.
    params.sm_scale = 1e-12f;
    attention_cpu(params);
    double mean = 0.0;
    for (std::int64_t n = 0; n < p.layout.length(); ++n) mean += v.get(v.at(0, 0, n, 5)) / p.layout.length();
    CHECK(std::abs(o.get(o.at(0, 0, 100, 5)) - mean) < 1e-6);
}

TEST_CASE("attention: a skipped block changes nothing without tail, and its mean counts with it", "[attention]") {
    Problem p;
    p.layout = {0, {4, 8, 8}, 0};
    p.heads = 1;
    Plan plan = p.plan();
    BlockMask mask(4, 4);
    for (int i = 0; i < 4; ++i) mask.set(i, i);
    plan = make_plan(p.layout, 64, 64, {HeadPlan{AxisOrder::FHW, mask, 0.25, 1.0}});
    Tensor q = p.random_tensor('q'), k = p.random_tensor('k'), v = p.random_tensor('v'), o = p.tensor();
    AttentionParams params = p.params(q, k, v, o, plan);
    attention_cpu(params);
    const auto before = p.values(o);
    for (std::int64_t n = 64; n < 128; ++n) v.set(v.at(0, 0, n, 3), 1000.0);
    attention_cpu(params);
    const auto after = p.values(o);
    CHECK(std::equal(before.begin(), before.begin() + 64 * 64, after.begin()));
    CHECK(std::equal(before.begin() + 128 * 64, before.end(), after.begin() + 128 * 64));
    CHECK(std::abs(after[64 * 64 + 3] - 1000.0) < 1e-2);
    params.tail = true;
    attention_cpu(params);
    CHECK(o.get(o.at(0, 0, 0, 3)) > 50.0);
}

TEST_CASE("attention: padding and the space between rows stay untouched", "[attention]") {
    Problem p;
    p.layout = {5, {1, 7, 9}, 0};
    p.heads = 1;
    const Plan plan = p.plan();
    Tensor q = p.random_tensor('q'), k = p.random_tensor('k'), v = p.random_tensor('v');
    const std::int64_t stride = 80, length = p.layout.length();
    std::vector<float> out(static_cast<std::size_t>(length * stride), -7.0f);
    Tensor unused = p.tensor();
    AttentionParams params = p.params(q, k, v, unused, plan);
    params.o = {out.data(), length * stride, stride, stride};
    attention_cpu(params);
    attention_cpu(p.params(q, k, v, unused, plan));
    bool same = true, untouched = true;
    for (std::int64_t n = 0; n < length; ++n) {
        for (std::int64_t d = 0; d < stride; ++d) {
            const float x = out[n * stride + d];
            if (d < 64) {
                same = same && x == static_cast<float>(unused.get(unused.at(0, 0, n, d)));
            } else {
                untouched = untouched && x == -7.0f;
            }
        }
    }
    CHECK(same);
    CHECK(untouched);
}
