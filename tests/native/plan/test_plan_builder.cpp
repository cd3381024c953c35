#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "expect_error.h"
#include "paro/plan_builder.h"
#include "profile_samples.h"

using namespace paro;
using namespace std::chrono_literals;

namespace {

constexpr Grid kGrid{6, 10, 14};

Profile sample(std::int32_t layers = 5, std::int32_t heads = 3) {
    return samples::profile(kGrid, layers, heads, 2, Bins::even(kGrid));
}

PlanRequest request(std::size_t group = 0) { return {group, {7, kGrid, 40}, 64, 64, 0.3, 2, {}}; }

bool same(const Plan& a, const Plan& b) {
    if (a.heads.size() != b.heads.size() || a.schedule != b.schedule || !(a.layout == b.layout)) return false;
    for (std::size_t i = 0; i < a.heads.size(); ++i) {
        const HeadPlan &x = a.heads[i], &y = b.heads[i];
        if (x.order != y.order || x.mask != y.mask || x.density != y.density || x.retained != y.retained) return false;
    }
    return true;
}

}  // namespace

TEST_CASE("plan builder: every layer is what plan_layer makes, with any number of threads", "[plan_builder]") {
    const Profile profile = sample();
    for (const int threads : {1, 2, 7}) {
        PlanRequest asked = request(1);
        asked.threads = threads;
        PlanBuilder builder(profile, asked);
        for (std::size_t layer = 0; layer < profile.layers.size(); ++layer) {
            const Plan expected = plan_layer(profile, {layer, 1, asked.layout, 64, 64, 0.3, 1});
            CHECK(same(*builder.get(layer), expected));
            CHECK(builder.ready(layer));
        }
        CHECK(builder.progress().done == 15);
        CHECK(builder.progress().all == 15);
    }
}

TEST_CASE("plan builder: groups differ, and the same layer is handed out twice", "[plan_builder]") {
    const Profile profile = sample();
    PlanBuilder first(profile, request(0)), second(profile, request(1));
    CHECK_FALSE(same(*first.get(2), *second.get(2)));
    CHECK(first.get(2) == first.get(2));
}

TEST_CASE("plan builder: plans outlive the builder and the profile", "[plan_builder]") {
    std::shared_ptr<const Plan> plan;
    const Plan expected = plan_layer(sample(), {4, 0, request().layout, 64, 64, 0.3, 1});
    {
        auto profile = std::make_unique<Profile>(sample());
        PlanBuilder builder(*profile, request());
        profile->layers.clear();
        profile.reset();
        plan = builder.get(4);
    }
    CHECK(same(*plan, expected));
}

TEST_CASE("plan builder: layers come in the order asked for, one that is waited for first", "[plan_builder]") {
    const Profile profile = sample(40, 2);
    PlanRequest asked = request();
    asked.threads = 1;
    asked.layers = {9, 3, 30, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22};
    PlanBuilder builder(profile, asked);
    // One thread: by the time the last layer is ready, only what it had begun may come before.
    CHECK(builder.wait(22, 60s));
    std::size_t finished = 0;
    for (const std::size_t layer : asked.layers) finished += builder.ready(layer);
    CHECK(builder.progress().all == 40);
    CHECK(builder.get(9) != nullptr);
    CHECK(finished <= asked.layers.size());
    EXPECT_ERROR(builder.get(0), "layer");
    EXPECT_ERROR(builder.ready(40), "layer");
    EXPECT_ERROR(builder.wait(4096, 0ms), "layer");
}

TEST_CASE("plan builder: cancelled, it stops soon and keeps what is finished", "[plan_builder]") {
    const Profile profile = sample(400, 3);
    PlanRequest asked = request();
    asked.threads = 1;
    PlanBuilder builder(profile, asked);
    const auto plan = builder.get(0);
    builder.cancel();
    CHECK(builder.get(0) == plan);
    CHECK(builder.ready(399));
    EXPECT_ERROR(builder.get(399), "layer");
    std::this_thread::sleep_for(50ms);
    CHECK(builder.progress().done < 1200);
}

TEST_CASE("plan builder: many start, wait, cancel and end at once", "[plan_builder]") {
    const Profile profile = sample(6, 2);
    for (int round = 0; round < 50; ++round) {
        PlanRequest asked = request();
        asked.threads = 4;
        PlanBuilder builder(profile, asked);
        std::thread reader([&] {
            try {
                for (std::size_t layer = 6; layer-- > 0;) builder.get(layer);
            } catch (const Error&) {
            }
        });
        if (round % 2 == 0) builder.cancel();
        reader.join();
        CHECK(builder.ready(0));
    }
}

TEST_CASE("plan builder: a layer that fails says so, the others are built", "[plan_builder]") {
    Profile profile = sample();
    profile.layers[2].heads[1].groups[0].kernel.code.pop_back();
    profile.layers[3].heads[0].density = std::numeric_limits<double>::quiet_NaN();
    PlanBuilder builder(profile, request());
    EXPECT_ERROR(builder.get(2), "code");
    EXPECT_ERROR(builder.get(2), "code");
    EXPECT_ERROR(builder.get(3), "density");
    for (const std::size_t layer : {0u, 1u, 4u}) CHECK(builder.get(layer)->heads.size() == 3);
}

TEST_CASE("plan builder: a head's own density comes first, full heads compute every block", "[plan_builder]") {
    Profile profile = sample();
    profile.layers[0].heads[0].density = 1.0;
    profile.layers[0].heads[2].density = 0.5;
    PlanBuilder builder(profile, request());
    const auto plan = builder.get(0);
    CHECK(plan->heads[0].mask.density() == 1.0);
    CHECK(plan->heads[0].order == profile.layers[0].heads[0].order);
    CHECK(plan->heads[0].retained == 1.0);
    const auto blocks = static_cast<double>(plan->heads[2].mask.rows() * plan->heads[2].mask.cols());
    CHECK(plan->heads[2].mask.count() >= std::llround(0.5 * blocks));
}

TEST_CASE("plan builder: what is known of a layer goes into its masks, and is read while it is busy",
          "[plan_builder]") {
    const Profile profile = sample();
    // 840 tokens: 14 rows and columns, the last ones of 8 tokens.
    std::vector<float> sums(3 * 14 * 14), counts(3 * 14);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = static_cast<float>(i * 7919 % 1000) / 1000.0f;
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<float>(i % 5);
    std::vector<std::uint8_t> codes(14 * 14);
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i * 31 % 256);
    KnownBlocks known{sums, counts, 4.0f, {{}, codes, {}}, 16.0f};
    PlanRequest asked = request(1);
    asked.known.resize(5);
    asked.known[3] = known;
    PlanBuilder builder(profile, asked);
    for (std::size_t layer = 0; layer < 5; ++layer) {
        const LayerRequest alone{layer, 1, asked.layout, 64, 64, 0.3, 1};
        const Plan bare = plan_layer(profile, alone);
        CHECK(same(*builder.get(layer), layer == 3 ? plan_layer(profile, alone, known) : bare));
        CHECK(same(*builder.get(layer), bare) == (layer != 3));
        CHECK_FALSE(builder.busy(layer));
    }
    EXPECT_ERROR(builder.busy(5), "layer");
}

TEST_CASE("plan builder: bad requests are refused before a thread starts", "[plan_builder]") {
    const Profile profile = sample();
    const auto refused = [&](auto change, const char* argument) {
        PlanRequest asked = request();
        change(asked);
        EXPECT_ERROR(PlanBuilder(profile, asked), argument);
    };
    refused([](PlanRequest& r) { r.group = 2; }, "group");
    refused([](PlanRequest& r) { r.layers = {5}; }, "layers");
    refused([](PlanRequest& r) { r.layers = {1, 1}; }, "layers");
    refused([](PlanRequest& r) { r.layout.grid.f = 0; }, "grid");
    refused([](PlanRequest& r) { r.layout.prefix = -1; }, "layout.prefix");
    refused([](PlanRequest& r) { r.block_q = 0; }, "block");
    refused([](PlanRequest& r) { r.block_kv = 4097; }, "block");
    refused([](PlanRequest& r) { r.density = 0.0; }, "density");
    refused([](PlanRequest& r) { r.density = 1.5; }, "density");
    refused([](PlanRequest& r) { r.known.resize(4); }, "known");
    const std::vector<float> one(1);
    refused([&](PlanRequest& r) { r.known.resize(5), r.known[2].counts = one; }, "known.counts");
    Profile empty = sample();
    empty.layers[1].heads.clear();
    EXPECT_ERROR(PlanBuilder(empty, request()), "profile");
}
