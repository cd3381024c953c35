#include "mass/key_gains.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "grid/flat_grid.h"

namespace paro {

namespace {

// Gains of `places` places read at every index of a side, between two places in proportion.
std::vector<float> at_side(std::span<const float> gains, std::int32_t side) {
    std::vector<float> result;
    const auto places = static_cast<double>(gains.size());
    for (std::int32_t i = 0; i < side; ++i) {
        const double at = std::clamp((i + 0.5) / side * places - 0.5, 0.0, places - 1.0);
        const auto low = static_cast<std::size_t>(at);
        const std::size_t high = std::min(low + 1, gains.size() - 1);
        const double share = at - static_cast<double>(low);
        result.push_back(static_cast<float>((1.0 - share) * gains[low] + share * gains[high]));
    }
    return result;
}

// One axis while gains are fitted: where every key lies as seen from a query, and what its gain is.
struct FitAxis {
    std::int32_t side, bins, places;
    BinTable bin;
    std::vector<std::int32_t> place;  // of each index
    std::vector<double> gain;         // of each place
    std::vector<double> expected;     // mass of each place
    // Of one query: the sum of gains in each bin, and the mass that a gain of 1 would have there.
    std::vector<double> weight, mass;

    FitAxis(const AxisBins& axis, std::int32_t size, std::int32_t count)
        : side(size),
          bins(axis.count()),
          places(count),
          bin(axis, size),
          place(places_of(size, count)),
          gain(static_cast<std::size_t>(count), 1.0),
          expected(gain.size(), 0.0),
          weight(static_cast<std::size_t>(axis.count())),
          mass(weight.size()) {}

    void look_from(std::int32_t query) {
        std::fill(weight.begin(), weight.end(), 0.0);
        std::fill(mass.begin(), mass.end(), 0.0);
        for (std::int32_t key = 0; key < side; ++key) weight[bin[key - query]] += gain[place[key]];
    }
    // Towards the mass that was seen, as far as it outweighs the prior.
    void rescale(std::span<const double> seen, double prior) {
        constexpr double kMost = 128.0;  // what a code can hold
        for (std::size_t i = 0; i < gain.size(); ++i) gain[i] *= (seen[i] + prior) / (expected[i] + prior);
        const double mean = std::accumulate(gain.begin(), gain.end(), 0.0) / places;
        for (double& own : gain) own = std::clamp(own / mean, 1.0 / kMost, kMost);
    }
    void expect(std::int32_t query, double scale) {
        for (std::int32_t key = 0; key < side; ++key) {
            expected[place[key]] += scale * gain[place[key]] * mass[bin[key - query]];
        }
    }
};

// Adds what a value of 1 in every bin would weigh in one query's row.
void add_weights(const FitAxis& f, const FitAxis& h, const FitAxis& w, double scale, std::vector<double>& weight) {
    double* own = weight.data();
    for (std::int32_t i = 0; i < f.bins; ++i) {
        for (std::int32_t j = 0; j < h.bins; ++j, own += w.bins) {
            const double across = scale * f.weight[i] * h.weight[j];
            for (std::int32_t k = 0; k < w.bins; ++k) own[k] += across * w.weight[k];
        }
    }
}

// Mass of one query's row along each axis by bin; returns its total.
double spread(const std::vector<double>& kernel, FitAxis& f, FitAxis& h, FitAxis& w) {
    const double* value = kernel.data();
    double total = 0.0;
    for (std::int32_t i = 0; i < f.bins; ++i) {
        for (std::int32_t j = 0; j < h.bins; ++j, value += w.bins) {
            const double across = f.weight[i] * h.weight[j];
            double line = 0.0;
            for (std::int32_t k = 0; k < w.bins; ++k) {
                line += value[k] * w.weight[k];
                w.mass[k] += value[k] * across;
            }
            f.mass[i] += line * h.weight[j];
            h.mass[j] += line * f.weight[i];
            total += line * across;
        }
    }
    return total;
}

}  // namespace

std::vector<std::int32_t> places_of(std::int32_t side, std::int32_t places) {
    std::vector<std::int32_t> result;
    for (std::int64_t i = 0; i < side; ++i) result.push_back(static_cast<std::int32_t>(i * places / side));
    return result;
}

std::vector<float> block_gains(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_kv) {
    const auto offsets = static_cast<std::size_t>(kernel.bins.size());
    if (kernel.value.size() <= offsets) return {};
    std::array<std::vector<float>, 3> gain;
    std::span<const float> rest = std::span(kernel.value).subspan(offsets);
    for (int axis = 0; axis < 3; ++axis) {
        const auto places = static_cast<std::size_t>(kernel.bins.keys[axis]);
        gain[axis] = at_side(rest.first(places), grid.sides()[axis]);
        rest = rest.subspan(places);
    }
    const std::array<int, 3> axis = axes(order);
    std::vector<float> result;
    double sum = 0.0;
    std::int32_t count = 0;
    for (const float slow : gain[axis[0]]) {
        for (const float middle : gain[axis[1]]) {
            for (const float fast : gain[axis[2]]) {
                sum += static_cast<double>(slow * middle) * fast;
                if (++count < block_kv) continue;
                result.push_back(static_cast<float>(sum / count));
                sum = 0.0;
                count = 0;
            }
        }
    }
    if (count > 0) result.push_back(static_cast<float>(sum / count));
    return result;
}

std::vector<float> fit_gains(const OffsetKernel& kernel, const Grid& grid, std::span<const std::int32_t> queries,
                             std::span<const double> mass) {
    constexpr int kRounds = 3;
    // A place needs as much mass again before its gain is believed by half: noise stays near 1, sinks do not.
    constexpr double kPrior = 0.25;
    const Bins& bins = kernel.bins;
    std::array<FitAxis, 3> axis = {FitAxis(bins.f, grid.f, bins.keys[0]), FitAxis(bins.h, grid.h, bins.keys[1]),
                                   FitAxis(bins.w, grid.w, bins.keys[2])};
    auto& [f, h, w] = axis;
    const double all = std::accumulate(mass.begin(), mass.begin() + bins.keys[0], 0.0);
    const double per_row = queries.empty() ? 0.0 : all / static_cast<double>(queries.size());
    const auto offsets = static_cast<std::size_t>(bins.size());
    std::vector<double> value(kernel.value.begin(), kernel.value.begin() + bins.size());
    std::vector<double> pairs(offsets, 0.0), weight;  // without gains and with them
    const auto look_from = [&](std::int32_t query) {
        const std::array<std::int32_t, 3> at = {query / grid.w / grid.h, query / grid.w % grid.h, query % grid.w};
        for (int a = 0; a < 3; ++a) axis[a].look_from(at[a]);
        return at;
    };
    for (const std::int32_t query : queries) {
        look_from(query);
        add_weights(f, h, w, 1.0, pairs);
    }
    for (int round = 0; round < kRounds && per_row > 0.0; ++round) {
        for (FitAxis& own : axis) std::fill(own.expected.begin(), own.expected.end(), 0.0);
        for (const std::int32_t query : queries) {
            const auto at = look_from(query);
            const double total = spread(value, f, h, w);
            if (total <= 0.0) continue;
            for (int a = 0; a < 3; ++a) axis[a].expect(at[a], per_row / total);
        }
        const double* seen = mass.data();
        for (FitAxis& own : axis) {
            own.rescale({seen, static_cast<std::size_t>(own.places)}, kPrior * all / own.places);
            seen += own.places;
        }
        // The offsets' values again, now that the gains say for a part of the mass where it comes from.
        weight.assign(offsets, 0.0);
        for (const std::int32_t query : queries) {
            look_from(query);
            const double total = spread(value, f, h, w);
            if (total > 0.0) add_weights(f, h, w, per_row / total, weight);
        }
        for (std::size_t i = 0; i < offsets; ++i) {
            if (weight[i] > 0.0) value[i] = std::min(1.0, kernel.value[i] * pairs[i] / weight[i]);
        }
    }
    std::vector<float> result;
    for (std::size_t i = 0; i < offsets; ++i) {
        result.push_back(kernel.value[i] > 0.0f ? static_cast<float>(value[i] / kernel.value[i]) : 1.0f);
    }
    for (const FitAxis& own : axis) result.insert(result.end(), own.gain.begin(), own.gain.end());
    return result;
}

}  // namespace paro
