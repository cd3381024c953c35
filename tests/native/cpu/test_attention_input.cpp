#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "expect_error.h"
#include "test_attention_problem.h"

using namespace paro;

namespace {

// A sound call that a test spoils in one place.
struct Call {
    Problem problem;
    Plan plan = problem.plan();
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v'),
           o = problem.tensor();
    AttentionParams params = problem.params(q, k, v, o, plan);

    template <class Spoil>
    void operator()(Spoil spoil) {
        AttentionParams p = params;
        spoil(p);
        attention_cpu(p);
    }
};

}  // namespace

TEST_CASE("attention input: every refusal names its argument", "[attention][input]") {
    Call call;
    REQUIRE_NOTHROW(call([](AttentionParams&) {}));
    EXPECT_ERROR(call([](AttentionParams& p) { p.plan = nullptr; }), "plan must not be null");
    EXPECT_ERROR(call([](AttentionParams& p) { p.head_dim = 96; }), "head_dim must be 64 or 128 (got 96)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.heads = 3; }), "heads must be the plan's, 2 (got 3)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.heads = 0; }), "heads must be at least 1 (got 0)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.batch = 0; }), "batch must be at least 1 (got 0)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.q.data = nullptr; }), "q.data must not be null");
    EXPECT_ERROR(call([](AttentionParams& p) { p.k.data = nullptr; }), "k.data must not be null");
    EXPECT_ERROR(call([](AttentionParams& p) { p.v.data = nullptr; }), "v.data must not be null");
    EXPECT_ERROR(call([](AttentionParams& p) { p.o.data = nullptr; }), "o.data must not be null");
    EXPECT_ERROR(call([](AttentionParams& p) { p.q.data = static_cast<const char*>(p.q.data) + 1; }), "q.data");
    EXPECT_ERROR(call([](AttentionParams& p) { p.q.stride_n = 0; }),
                 "q.stride_n must be at least head_dim, 64 (got 0)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.k.stride_h = 0; }),
                 "k.stride_h must be at least head_dim, 64 (got 0)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.v.stride_n = 63; }),
                 "v.stride_n must be at least head_dim, 64 (got 63)");
    EXPECT_ERROR(call([](AttentionParams& p) { p.o.stride_n = -64; }), "o.stride_n");
    EXPECT_ERROR(call([](AttentionParams& p) {
                     p.batch = 2;
                     p.o.stride_b = 0;
                 }),
                 "o.stride_b");
    EXPECT_ERROR(call([](AttentionParams& p) { p.sm_scale = std::numeric_limits<float>::quiet_NaN(); }), "sm_scale");
    EXPECT_ERROR(call([](AttentionParams& p) { p.sm_scale = std::numeric_limits<float>::infinity(); }), "sm_scale");
    EXPECT_ERROR(call([](AttentionParams& p) { p.dtype = static_cast<DType>(7); }), "dtype");
    EXPECT_ERROR(call([](AttentionParams& p) { p.precision = static_cast<Precision>(7); }), "precision");
}

TEST_CASE("attention input: strides of dimensions of one element are not looked at", "[attention][input]") {
    Call call;
    call.plan.heads.pop_back();
    const Plan one = make_plan(call.plan.layout, 64, 64, call.plan.heads);
    CHECK_NOTHROW(call([&](AttentionParams& p) {
        p.plan = &one;
        p.heads = 1;
        p.q.stride_b = p.q.stride_h = p.o.stride_b = p.o.stride_h = 0;
    }));
}

TEST_CASE("attention input: tiles that the kernels do not have are refused by name", "[attention][input]") {
    for (const std::int32_t block : {8, 24, 72, 272, 512}) {
        Problem p;
        p.block_q = block;
        EXPECT_ERROR(p.run(), "plan.block_q must be a multiple of 16 from 16 to 256");
        p.block_q = 64;
        p.block_kv = block;
        EXPECT_ERROR(p.run(), "plan.block_kv must be a multiple of 16 from 16 to 256");
    }
}

TEST_CASE("attention input: plans that were not made by make_plan", "[attention][input]") {
    Call call;
    const auto with = [&](auto spoil) {
        Plan plan = call.plan;
        spoil(plan);
        call([&](AttentionParams& p) { p.plan = &plan; });
    };
    EXPECT_ERROR(with([](Plan& p) { p.schedule.clear(); }), "plan.schedule must hold 6 tiles (got 0)");
    EXPECT_ERROR(with([](Plan& p) { p.schedule[1] = p.schedule[0]; }), "plan.schedule must hold every tile once");
    EXPECT_ERROR(with([](Plan& p) { p.schedule[1].index = 99; }), "plan.schedule must hold tiles of the plan");
    EXPECT_ERROR(with([](Plan& p) { p.schedule[1].head = -1; }), "plan.schedule must hold tiles of the plan");
    EXPECT_ERROR(with([](Plan& p) { p.heads[1].mask = BlockMask(3, 2); }), "plan.heads[1].mask must have 3 columns");
    EXPECT_ERROR(with([](Plan& p) { p.heads[0].mask = BlockMask(4, 3); }), "plan.heads[0].mask must have 3 rows");
    EXPECT_ERROR(with([](Plan& p) { p.layout.grid.f = 0; }), "grid");
    const auto clear_row = [](Plan& p) {
        for (int c = 0; c < 3; ++c) p.heads[1].mask.set(2, c, false);
    };
    EXPECT_ERROR(with(clear_row), "plan.heads[1].mask must keep a block in every row");
    // The tail covers what the mask leaves out.
    call.params.tail = true;
    CHECK_NOTHROW(with(clear_row));
}
