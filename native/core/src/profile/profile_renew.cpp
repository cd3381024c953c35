#include <string>

#include "mass/kernel_blend.h"
#include "paro/error.h"
#include "paro/profile_merge.h"
#include "paro/thread_pool.h"

namespace paro {

namespace {

std::string at(const char* name, std::size_t index) { return name + ('[' + std::to_string(index) + ']'); }

const Bins* check_samples(const Profile& profile, const LayerSamples& samples, const std::string& name) {
    require(samples.layer < profile.layers.size(), name + ".layer", "must be an index into the profile's layers",
            samples.layer);
    const std::size_t heads = profile.layers[samples.layer].heads.size();
    const Bins* bins = nullptr;
    for (std::size_t i = 0; i < samples.groups.size(); ++i) {
        const LayerSamples::Group& own = samples.groups[i];
        const std::string place = name + '.' + at("groups", i);
        require(own.heads.size() == heads, place + ".heads",
                "must hold one entry for each of the layer's " + std::to_string(heads) + " heads", own.heads.size());
        require(own.weight >= 0.0, place + ".weight", "must not be negative", own.weight);
        for (const OffsetAccumulator* head : own.heads) {
            if (bins == nullptr) bins = &head->bins();
            require(head->bins() == *bins, place + ".heads", "must share their bins", "different bins");
        }
    }
    return bins;
}

// Mean kernel of a head over the groups, and the weighted rows behind it.
double observed(const LayerSamples& samples, std::size_t head, OffsetKernel& kernel) {
    double rows = 0.0;
    for (const LayerSamples::Group& group : samples.groups) {
        const double more = group.weight * static_cast<double>(group.heads[head]->rows());
        if (more <= 0.0) continue;
        OffsetKernel fresh = group.heads[head]->kernel();
        if (rows > 0.0) {
            blend(kernel, fresh, rows / (rows + more));
        } else {
            kernel = std::move(fresh);
        }
        rows += more;
    }
    return rows;
}

}  // namespace

Profile renew_profile(const Profile& profile, std::size_t group, std::span<const LayerSamples> samples, float prior,
                      int threads) {
    require(group < profile.timestep_groups.size(), "group", "must be an index into the timestep groups", group);
    require(prior >= 0.0f, "prior", "must not be negative", prior);
    struct Task {
        const LayerSamples* samples;
        const Rebin* rebin;
        std::size_t head;
    };
    std::vector<Rebin> rebins;
    std::vector<Task> tasks;
    rebins.reserve(samples.size());
    std::vector<bool> named(profile.layers.size(), false);
    for (std::size_t i = 0; i < samples.size(); ++i) {
        const Bins* bins = check_samples(profile, samples[i], at("samples", i));
        require(!named[samples[i].layer], "samples", "must not name a layer twice", samples[i].layer);
        named[samples[i].layer] = true;
        if (bins == nullptr) continue;
        const auto& heads = profile.layers[samples[i].layer].heads;
        rebins.emplace_back(*bins, profile.bins);
        for (std::size_t head = 0; head < heads.size(); ++head) {
            require(group < heads[head].groups.size(), "group", "must be an index into every head's groups", group);
            tasks.push_back({&samples[i], &rebins.back(), head});
        }
    }
    Profile renewed = profile;
    parallel_for(static_cast<std::int64_t>(tasks.size()), threads, [&](std::int64_t index, int) {
        const auto& [own, rebin, head] = tasks[static_cast<std::size_t>(index)];
        OffsetKernel fresh;
        const double rows = observed(*own, head, fresh);
        if (rows <= 0.0) return;
        HeadGroup& target = renewed.layers[own->layer].heads[head].groups[group];
        OffsetKernel kernel = dequantise(profile.bins, target.kernel);
        blend(kernel, (*rebin)(std::move(fresh)), prior / (prior + rows));
        target.kernel = quantise(kernel);
    });
    return renewed;
}

}  // namespace paro
