// Two profiles of one model brought together, completed, renewed, compared and written.
#include "fuzz_values.h"
#include "paro/profile_diff.h"
#include "paro/profile_merge.h"

namespace {

const paro::ProfileLayer* layer_of(const paro::Profile& profile, const std::string& id) {
    const auto found = std::ranges::find(profile.layers, id, &paro::ProfileLayer::id);
    return found == profile.layers.end() ? nullptr : &*found;
}

// What is locked keeps its order; densities of one's own and locks stay.
void check_kept(const paro::Profile& old, const paro::Profile& made, bool orders) {
    paro::validate(made);
    for (const paro::ProfileLayer& before : old.layers) {
        const paro::ProfileLayer* after = layer_of(made, before.id);
        fuzz::check(after != nullptr, "a layer must not be lost");
        for (std::size_t h = 0; h < before.heads.size(); ++h) {
            const paro::ProfileHead &a = before.heads[h], &b = after->heads[h];
            fuzz::check(a.locked == b.locked && a.density == b.density, "locks and densities must stay");
            if (a.locked || orders) fuzz::check(a.order == b.order, "the order of a locked head must stay");
        }
    }
}

void renew(fuzz::Bytes& bytes, const paro::Profile& profile) {
    const paro::Grid& grid = profile.calibration.grids.front();
    std::vector<paro::OffsetAccumulator> sampled;
    for (std::int32_t h = 0; h < profile.model.heads; ++h) {
        paro::OffsetAccumulator& one = sampled.emplace_back(profile.bins, grid);
        std::vector<float> row(static_cast<std::size_t>(grid.size()));
        for (float& value : row) value = bytes.ConsumeFloatingPointInRange<float>(0.0f, 1.0f);
        if (bytes.ConsumeBool()) one.add_row(fuzz::pick(bytes, 0, static_cast<std::int32_t>(grid.size()) - 1), row);
    }
    paro::LayerSamples samples;
    samples.layer = static_cast<std::size_t>(fuzz::pick(bytes, 0, 3));
    samples.groups.resize(1);
    for (const paro::OffsetAccumulator& one : sampled) samples.groups[0].heads.push_back(&one);
    samples.groups[0].weight = bytes.ConsumeFloatingPointInRange<double>(-0.1, 4.0);
    const auto group = static_cast<std::size_t>(fuzz::pick(bytes, 0, 1));
    const float prior = bytes.ConsumeFloatingPointInRange<float>(-0.1f, 64.0f);
    fuzz::accepted([&] { check_kept(profile, paro::renew_profile(profile, group, {&samples, 1}, prior, 1), true); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Bytes bytes(data, size);
    const fuzz::Budget budget;
    const paro::Grid grid = fuzz::grid(bytes, 3);
    const auto shape = bytes.ConsumeIntegral<std::uint8_t>();
    const double density = bytes.ConsumeFloatingPointInRange<double>(0.0, 1.0);
    const paro::Profile a = fuzz::profile(bytes, shape, grid), b = fuzz::profile(bytes, shape, grid);
    fuzz::check(paro::parse_profile(paro::dump_profile(a)) == a, "a profile must read back as it was");
    fuzz::accepted([&] { check_kept(a, paro::merge_profiles(a, b, density, 1), false); });
    fuzz::accepted([&] { check_kept(a, paro::complete_profile(a, b, 1), true); });
    fuzz::accepted([&] {
        const paro::ProfileDiff diff = paro::diff_profiles(a, b, fuzz::pick(bytes, 8, 64), 1);
        fuzz::check(diff.changed() <= diff.heads.size(), "only heads that both hold may have changed");
        diff.mean();
    });
    renew(bytes, a);
    return 0;
}
