#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>

#include "expect_error.h"
#include "paro/profile_diff.h"
#include "paro/profile_merge.h"
#include "profile_samples.h"

using namespace paro;

namespace {

constexpr Grid kGrid{4, 6, 8};

Profile sample(std::uint32_t prompts = 1, const Bins& bins = Bins::even(kGrid)) {
    Profile profile = samples::profile(kGrid, 3, 2, 2, bins);
    profile.calibration.prompts = static_cast<std::int32_t>(prompts);
    return profile;
}

// One value everywhere in one head's kernel.
void flatten(Profile& profile, std::size_t layer, std::size_t head, std::size_t group, float value) {
    OffsetKernel kernel{profile.bins, std::vector<float>(static_cast<std::size_t>(profile.bins.size()), value)};
    profile.layers[layer].heads[head].groups[group].kernel = quantise(kernel);
}

OffsetKernel kernel_of(const Profile& profile, std::size_t layer, std::size_t head, std::size_t group) {
    return dequantise(profile.bins, profile.layers[layer].heads[head].groups[group].kernel);
}

// Attention along one axis: its own order is plain.
void along(Profile& profile, std::size_t layer, std::size_t head, int axis) {
    OffsetKernel kernel{profile.bins, {}};
    for (std::int32_t f = 0; f < profile.bins.f.count(); ++f) {
        for (std::int32_t h = 0; h < profile.bins.h.count(); ++h) {
            for (std::int32_t w = 0; w < profile.bins.w.count(); ++w) {
                const std::int32_t across = (axis == 0 ? 0 : f) + (axis == 1 ? 0 : h) + (axis == 2 ? 0 : w);
                kernel.value.push_back(static_cast<float>(0.01 * std::exp2(-4.0 * across)));
            }
        }
    }
    for (HeadGroup& group : profile.layers[layer].heads[head].groups) group.kernel = quantise(kernel);
}

}  // namespace

TEST_CASE("merge: the mean is weighted by prompts, equally where neither says", "[profile_merge]") {
    struct Case {
        std::uint32_t old, fresh;
        double mean;
    };
    for (const Case& c : {Case{1, 1, 0.02}, Case{3, 1, 0.015}, Case{1, 9, 0.028}, Case{0, 0, 0.02}, Case{0, 5, 0.03}}) {
        Profile old = sample(c.old), fresh = sample(c.fresh);
        flatten(old, 1, 1, 0, 0.01f);
        flatten(fresh, 1, 1, 0, 0.03f);
        const Profile merged = merge_profiles(old, fresh, 0.3, 1);
        CHECK(kernel_of(merged, 1, 1, 0).value[17] == Catch::Approx(c.mean).epsilon(1e-5));
        CHECK(merged.calibration.prompts == static_cast<std::int32_t>(c.old + c.fresh));
    }
}

TEST_CASE("merge: what one never observed the other tells", "[profile_merge]") {
    Profile old = sample(), fresh = sample();
    flatten(old, 0, 0, 0, 0.01f);
    flatten(fresh, 0, 0, 0, 0.01f);
    old.layers[0].heads[0].groups[0].kernel.code[5] = 0;
    fresh.layers[0].heads[0].groups[0].kernel.code[9] = 0;
    old.layers[0].heads[0].groups[0].kernel.code[11] = fresh.layers[0].heads[0].groups[0].kernel.code[11] = 0;
    const OffsetKernel kernel = kernel_of(merge_profiles(old, fresh, 0.3, 1), 0, 0, 0);
    CHECK(kernel.value[5] == Catch::Approx(0.01));
    CHECK(kernel.value[9] == Catch::Approx(0.01));
    CHECK(kernel.value[11] == 0.0f);
}

TEST_CASE("merge: orders are chosen anew, locked heads and densities stay", "[profile_merge]") {
    Profile old = sample(), fresh = sample();
    for (Profile* profile : {&old, &fresh}) {
        for (std::size_t layer = 0; layer < 3; ++layer) {
            for (std::size_t head = 0; head < 2; ++head) along(*profile, layer, head, 0);
        }
    }
    ProfileHead &open = old.layers[0].heads[0], &locked = old.layers[1].heads[0];
    open.order = locked.order = AxisOrder::FHW;
    open.locked = false;
    open.density.reset();
    fresh.layers[0].heads[0].density = 0.9;  // counts for nothing
    locked.locked = true;
    locked.density = 0.45;
    const Profile merged = merge_profiles(old, fresh, 0.2, 2);
    // Attention along F is gathered where F runs fastest.
    CHECK(axes(merged.layers[0].heads[0].order)[2] == 0);
    CHECK_FALSE(merged.layers[0].heads[0].locked);
    CHECK_FALSE(merged.layers[0].heads[0].density.has_value());
    CHECK(merged.layers[1].heads[0].order == AxisOrder::FHW);
    CHECK(merged.layers[1].heads[0].locked);
    CHECK(merged.layers[1].heads[0].density == 0.45);
    CHECK(merged.defaults == old.defaults);
    CHECK(merged.timestep_groups == old.timestep_groups);
}

TEST_CASE("merge: kernels of other bins meet in those that reach farther, else in the finer ones", "[profile_merge]") {
    const Bins coarse_bins{{{0, 3}}, {{0, 1, 2, 5}}, {{0, 4, 7}}};
    Profile old = sample(1, coarse_bins), fresh = sample(1);
    flatten(old, 0, 0, 0, 0.01f);
    flatten(fresh, 0, 0, 0, 0.03f);
    for (const bool turned : {false, true}) {
        const Profile merged = turned ? merge_profiles(fresh, old, 0.3, 1) : merge_profiles(old, fresh, 0.3, 1);
        CHECK(merged.bins == fresh.bins);
        for (const float value : kernel_of(merged, 0, 0, 0).value) CHECK(value == Catch::Approx(0.02).epsilon(1e-5));
    }
    // A larger grid's kernel keeps what the smaller one cannot say.
    const Grid larger{5, 8, 10};
    Profile wide = samples::profile(larger, 3, 2, 2, Bins::even(larger));
    flatten(wide, 0, 0, 0, 0.03f);
    const Profile merged = merge_profiles(old, wide, 0.3, 1);
    CHECK(merged.bins == wide.bins);
    CHECK(merged.calibration.grids == std::vector<Grid>{kGrid, larger});
    const OffsetKernel kernel = kernel_of(merged, 0, 0, 0);
    CHECK(kernel.value.front() == Catch::Approx(0.02).epsilon(0.3));  // a code in coarse steps
    CHECK(kernel.value.back() == Catch::Approx(0.03).epsilon(1e-5));
    // Signed and even: every side counts.
    Profile sided = sample(1, Bins::signed_offsets(kGrid));
    flatten(sided, 0, 0, 0, 0.03f);
    CHECK(merge_profiles(old, sided, 0.3, 1).layers[0].heads[0].groups.size() == 2);
    CHECK(kernel_of(merge_profiles(sided, old, 0.3, 1), 0, 0, 0).value[3] == Catch::Approx(0.02).epsilon(1e-5));
}

TEST_CASE("merge: profiles that do not belong together are refused, both stay as they were", "[profile_merge]") {
    const Profile old = sample();
    const auto refused = [&](const std::function<void(Profile&)>& change, const char* message) {
        Profile fresh = sample();
        change(fresh);
        const Profile before = fresh;
        EXPECT_ERROR(merge_profiles(old, fresh, 0.3, 1), message);
        CHECK(fresh == before);
    };
    refused([](Profile& p) { p.model.family = "other"; },
            "profile must be of the same model as the one it goes into: family must be \"wan21\" (got \"other\")");
    refused([](Profile& p) { p.model.fingerprint = std::string(64, 'b'); },
            "profile must be of the same model as the one it goes into: fingerprint");
    refused([](Profile& p) { p.model.patches = "lora"; },
            "profile must be of the same model as the one it goes into: patches must be \"\" (got \"lora\")");
    refused([](Profile& p) { p.model.head_dim = 64; },
            "profile must be of the same model as the one it goes into: head_dim must be 128 (got 64)");
    refused(
        [](Profile& p) {
            p.calibration.grids = {{4, 6, 80}};
        },
        "profile must be of a grid near those of the one it goes into, each side within 0.75 to 1.35 of 4x6x8; "
        "otherwise save it under a name of its own (got 4x6x80)");
    refused([](Profile& p) { p.layers[1].id = p.layers[0].id; }, "layers[1].id");
    EXPECT_ERROR(merge_profiles(old, sample(), 0.0, 1), "density");
    CHECK(old == sample());
}

TEST_CASE("merge: a layer that one alone holds is taken over in its place", "[profile_merge]") {
    const Profile whole = sample(3);
    const auto without = [&](std::ptrdiff_t layer) {
        Profile part = whole;
        part.layers.erase(part.layers.begin() + layer);
        part.model.layers = 2;
        return part;
    };
    for (const std::ptrdiff_t lost : {0, 1, 2}) {
        // The other one has a layer that this one lacks, and lacks one that this one has.
        const Profile merged = merge_profiles(without(lost), without((lost + 1) % 3), 0.3, 2);
        CHECK(merged.model.layers == 3);
        REQUIRE(merged.layers.size() == 3);
        for (const ProfileLayer& layer :
             {whole.layers[static_cast<std::size_t>(lost)], whole.layers[static_cast<std::size_t>((lost + 1) % 3)]}) {
            CHECK(std::find(merged.layers.begin(), merged.layers.end(), layer) != merged.layers.end());
        }
        // All layers of the other: they stand as they do there.
        const Profile filled = merge_profiles(without(lost), whole, 0.3, 2);
        for (std::size_t layer = 0; layer < 3; ++layer) CHECK(filled.layers[layer].id == whole.layers[layer].id);
    }
}

TEST_CASE("merge: a layer of other bins is taken over in the common ones, with its order", "[profile_merge]") {
    const Grid larger{5, 8, 10};
    Profile old = sample(), fresh = samples::profile(larger, 3, 2, 2, Bins::even(larger));
    flatten(old, 0, 0, 0, 0.01f);
    const ProfileHead before = old.layers[0].heads[0];
    fresh.layers.erase(fresh.layers.begin());
    fresh.model.layers = 2;
    const Profile merged = merge_profiles(old, fresh, 0.3, 1);
    CHECK(merged.bins == fresh.bins);
    REQUIRE(merged.layers.size() == 3);
    const ProfileHead& head = merged.layers[0].heads[0];
    CHECK(head.order == before.order);
    CHECK(head.locked == before.locked);
    CHECK(kernel_of(merged, 0, 0, 0).value.front() == Catch::Approx(0.01).epsilon(1e-5));
}

TEST_CASE("merge: one timestep group counts for both of the other profile", "[profile_merge]") {
    Profile two = sample();
    Profile one = samples::profile(kGrid, 3, 2, 1, Bins::even(kGrid));
    one.calibration.prompts = 1;
    flatten(one, 0, 0, 0, 0.01f);
    for (std::size_t group = 0; group < 2; ++group) flatten(two, 0, 0, group, 0.03f);
    for (const bool turned : {false, true}) {
        const Profile merged = turned ? merge_profiles(two, one, 0.3, 1) : merge_profiles(one, two, 0.3, 1);
        CHECK(merged.timestep_groups == two.timestep_groups);
        for (std::size_t group = 0; group < 2; ++group)
            CHECK(kernel_of(merged, 0, 0, group).value[17] == Catch::Approx(0.02).epsilon(1e-5));
    }
}

TEST_CASE("merge: completing takes only the layers that are lacking", "[profile_merge]") {
    const Profile whole = sample(3);
    Profile part = sample(2), other = whole;
    part.layers.erase(part.layers.begin() + 1);
    part.model.layers = 2;
    part.defaults.density = 0.4;
    flatten(part, 0, 0, 0, 0.5f);
    const Profile both = complete_profile(part, other, 2);
    CHECK(both.calibration == part.calibration);
    CHECK(both.defaults == part.defaults);
    REQUIRE(both.layers.size() == 3);
    CHECK(both.layers[0] == part.layers[0]);
    CHECK(both.layers[1] == whole.layers[1]);
    CHECK(both.layers[2] == part.layers[1]);
    other.model.patches = "lora";
    EXPECT_ERROR(complete_profile(part, other, 1),
                 "profile must be of the same model as the one it goes into: patches must be \"\" (got \"lora\")");
}

TEST_CASE("merge: the same with any number of threads", "[profile_merge]") {
    const Profile old = sample(2);
    Profile fresh = sample(1);
    along(fresh, 0, 1, 2);
    CHECK(merge_profiles(old, fresh, 0.3, 1) == merge_profiles(old, fresh, 0.3, 5));
}

TEST_CASE("diff: a profile and itself differ in nothing", "[profile_merge]") {
    const ProfileDiff diff = diff_profiles(sample(), sample(), 64, 2);
    CHECK(diff.fields.empty());
    CHECK(diff.only_a.empty());
    CHECK(diff.only_b.empty());
    REQUIRE(diff.heads.size() == 12);
    CHECK(diff.changed() == 0);
    CHECK(diff.mean().a_by_a == diff.mean().b_by_a);
    for (const ProfileDiff::Head& head : diff.heads) {
        CHECK(head.a_by_a == head.a_by_b);
        CHECK(head.a_by_a == head.b_by_a);
    }
}

TEST_CASE("diff: what changed is named, and what each keeps under the other's plan", "[profile_merge]") {
    Profile a = sample(), b = sample(4);
    b.calibration.sampler = "dpmpp";
    b.defaults.density = 0.2;
    along(a, 1, 0, 0);
    along(b, 1, 0, 2);
    a.layers[1].heads[0].order = AxisOrder::HWF;  // F fastest
    b.layers[1].heads[0].order = AxisOrder::FHW;  // W fastest
    a.layers[1].heads[0].density = b.layers[1].heads[0].density = 0.1;
    b.layers[2].id = "block.7.0";
    b.model.patches = "lora";
    const ProfileDiff diff = diff_profiles(a, b, 16, 2);
    std::vector<std::string> names;
    for (const auto& field : diff.fields) names.push_back(field.name + ": " + field.a + " / " + field.b);
    CHECK(names == std::vector<std::string>{"model.patches: \"\" / \"lora\"",
                                            "calibration.sampler: \"euler\" / \"dpmpp\"", "calibration.prompts: 1 / 4",
                                            "defaults.density: 0.3 / 0.2"});
    CHECK(diff.only_a == std::vector<std::string>{"block.2.0"});
    CHECK(diff.only_b == std::vector<std::string>{"block.7.0"});
    REQUIRE(diff.heads.size() == 8);
    const auto found = std::find_if(diff.heads.begin(), diff.heads.end(),
                                    [](const auto& head) { return head.layer == "block.1.0" && head.head == 0; });
    REQUIRE(found != diff.heads.end());
    CHECK(found->changed());
    CHECK(found->order_a == AxisOrder::HWF);
    CHECK(found->order_b == AxisOrder::FHW);
    CHECK(found->a_by_a > found->a_by_b + 0.2);
    CHECK(found->b_by_b > found->b_by_a + 0.2);
    double sum = 0.0;
    for (const ProfileDiff::Head& head : diff.heads) sum += head.a_by_b;
    CHECK(diff.mean().a_by_b == Catch::Approx(sum / 8.0));
    CHECK(diff.changed() == 4);  // two heads in two groups: one by its order, one by the default density
    // A head without a density of its own has the profile's default.
    CHECK(diff.heads[0].density_a == 0.3);
    CHECK(diff.heads[0].density_b == 0.2);
    CHECK(diff.heads[0].changed());
    EXPECT_ERROR(diff_profiles(a, b, 0, 1), "block_q");
    a.calibration.grids.clear();
    EXPECT_ERROR(diff_profiles(a, b, 64, 1), "calibration.grids");
}
