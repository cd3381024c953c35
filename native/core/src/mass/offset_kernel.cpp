#include "paro/offset_kernel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>

#include "paro/error.h"

namespace paro {

namespace {

// One step of the code in octaves: 254 steps span 2^24.
constexpr double kStep = 24.0 / 254.0;

// A sum in the units that the GPU's kernels count in. Whole numbers of them add up without rounding (below 2^21), so
// what an accumulator holds does not depend on the order in which rows came, as from two threads.
double whole_units(double sum) { return std::nearbyint(sum * 0x1p32) * 0x1p-32; }

std::int32_t nearest(const std::vector<std::int32_t>& edges, std::int64_t offset) {
    const auto above = std::lower_bound(edges.begin(), edges.end(), offset,
                                        [](std::int32_t edge, std::int64_t value) { return edge < value; });
    const auto index = static_cast<std::int32_t>(above - edges.begin());
    if (above == edges.begin()) return 0;
    if (above == edges.end()) return index - 1;
    const std::int64_t to_above = *above - offset, to_below = offset - *(above - 1);
    if (to_above != to_below) return to_above < to_below ? index : index - 1;
    return std::abs(*above) < std::abs(*(above - 1)) ? index : index - 1;
}

// The bin of every key along one axis as seen from one query, and the number of keys in every bin.
struct KeyBins {
    std::vector<std::int32_t> bin;
    std::vector<double> keys;
};

KeyBins key_bins(const AxisBins& bins, std::int32_t size, std::int64_t query) {
    KeyBins result{{}, std::vector<double>(bins.edges.size(), 0.0)};
    for (std::int32_t key = 0; key < size; ++key) {
        result.bin.push_back(bins.bin(key - static_cast<std::int32_t>(query)));
        result.keys[result.bin.back()] += 1.0;
    }
    return result;
}

void validate_axis(const AxisBins& bins, const char* name) {
    constexpr std::int32_t limit = 1 << 20;
    const std::string place = std::string("bins.") + name;
    require(!bins.edges.empty(), place, "must have edges", "none");
    require(bins.edges.size() <= 512, place, "must have at most 512 edges", bins.edges.size());
    for (std::size_t i = 0; i < bins.edges.size(); ++i) {
        const std::int32_t edge = bins.edges[i];
        require(edge >= -limit && edge <= limit, place, "must lie within +-2^20", edge);
        require(i == 0 || bins.edges[i - 1] < edge, place, "must be strictly increasing", edge);
    }
}

}  // namespace

std::int32_t AxisBins::bin(std::int32_t offset) const {
    const std::int64_t wide = offset;  // |INT_MIN| does not fit 32 bits
    return nearest(edges, even() ? std::abs(wide) : wide);
}

AxisBins even_bins(std::int32_t size, double growth) {
    require(size >= 1, "size", "must be at least 1", size);
    require(growth >= 1.0, "growth", "must be at least 1", growth);
    AxisBins bins;
    const std::int64_t last = size - 1;
    for (std::int64_t edge = 0; edge < last;) {
        bins.edges.push_back(static_cast<std::int32_t>(edge));
        edge = std::max<std::int64_t>(edge + 1, std::llround(static_cast<double>(edge) * growth));
    }
    bins.edges.push_back(static_cast<std::int32_t>(last));
    return bins;
}

AxisBins signed_bins(std::int32_t size) {
    const AxisBins half = even_bins(size);
    AxisBins bins;
    for (auto edge = half.edges.rbegin(); edge != half.edges.rend() - 1; ++edge) bins.edges.push_back(-*edge);
    bins.edges.insert(bins.edges.end(), half.edges.begin(), half.edges.end());
    return bins;
}

std::int64_t Bins::index(std::int32_t df, std::int32_t dh, std::int32_t dw) const {
    return (std::int64_t{f.bin(df)} * h.count() + h.bin(dh)) * w.count() + w.bin(dw);
}

Bins Bins::even(const Grid& grid) {
    paro::validate(grid);
    Bins bins;
    // The sums as they are: profiles were written with these bins.
    // NOLINTNEXTLINE(cert-flp30-c,clang-analyzer-security.FloatLoopCounter)
    for (double growth = 1.0; growth < 64.0; growth += growth < 1.5 ? 0.02 : 0.5) {
        bins = {even_bins(grid.f, growth), even_bins(grid.h, growth), even_bins(grid.w, growth)};
        if (bins.size() <= kEvenBins) break;
    }
    return bins;
}

Bins Bins::signed_offsets(const Grid& grid) {
    paro::validate(grid);
    return {signed_bins(grid.f), signed_bins(grid.h), signed_bins(grid.w)};
}

void validate(const Bins& bins) {
    validate_axis(bins.f, "F");
    validate_axis(bins.h, "H");
    validate_axis(bins.w, "W");
    require(bins.size() <= std::int64_t{1} << 22, "bins", "must be at most 2^22 in all", bins.size());
}

void validate(const OffsetKernel& kernel) {
    validate(kernel.bins);
    const auto values = static_cast<std::int64_t>(kernel.value.size());
    require(values == kernel.bins.size(), "kernel.value",
            "must have " + std::to_string(kernel.bins.size()) + " values, one per bin", values);
    for (const float value : kernel.value) {
        require(std::isfinite(value) && value >= 0.0f, "kernel.value", "must be finite and not negative", value);
    }
}

KernelCode quantise(const OffsetKernel& kernel) {
    validate(kernel);
    KernelCode result;
    const auto offsets = static_cast<std::size_t>(kernel.bins.size());
    result.code.assign(offsets, 0);
    for (std::size_t i = 0; i < offsets; ++i) result.peak = std::max(result.peak, kernel.value[i]);
    for (std::size_t i = 0; i < offsets; ++i) {
        if (kernel.value[i] <= 0.0f) continue;  // so is everything when the peak is 0
        const double ratio = static_cast<double>(kernel.value[i]) / result.peak;
        const double code = std::round(255.0 + std::log2(ratio) / kStep);
        // Below the smallest code the scale ends at 0, so the nearer of the two values decides.
        const double floor = ratio < std::exp2(-25.0) ? 0.0 : 1.0;
        result.code[i] = static_cast<std::uint8_t>(std::clamp(code, floor, 255.0));
    }
    return result;
}

KernelCode coarse(const Bins& bins, KernelCode code) {
    const auto reach = [](const AxisBins& axis) { return static_cast<double>(axis.edges.back()) + 1.0; };
    const double offsets = std::max(1.0, reach(bins.f) * reach(bins.h) * reach(bins.w));
    // In codes below the peak. Where a head looks at itself most, all else lies many octaves below.
    const double fine = code.peak > 0.0f ? std::log2(16.0 * code.peak * offsets) / kStep : 0.0;
    const double border = std::clamp(fine, 128.0, 254.0);
    for (std::uint8_t& c : code.code) {
        if (c == 0) continue;
        const double below = 255.0 - c, step = below <= border ? 8.0 : 32.0;
        c = static_cast<std::uint8_t>(std::max(1.0, 255.0 - std::round(below / step) * step));
    }
    return code;
}

OffsetKernel dequantise(const Bins& bins, const KernelCode& code) {
    validate(bins);
    require(static_cast<std::int64_t>(code.code.size()) == bins.size(), "code",
            "must have " + std::to_string(bins.size()) + " values, one per bin", code.code.size());
    require(std::isfinite(code.peak) && code.peak >= 0.0f, "peak", "must be finite and not negative", code.peak);
    std::array<float, 256> value{};
    for (int c = 1; c < 256; ++c) value[c] = static_cast<float>(code.peak * std::exp2((c - 255) * kStep));
    OffsetKernel kernel{bins, {}};
    kernel.value.reserve(code.code.size());
    for (const std::uint8_t c : code.code) kernel.value.push_back(value[c]);
    return kernel;
}

OffsetAccumulator::OffsetAccumulator(const Bins& bins, const Grid& grid) : bins_(bins), grid_(grid) {
    validate(bins);
    validate(grid);
    sum_.assign(static_cast<std::size_t>(bins.size()), 0.0);
    pairs_.assign(sum_.size(), 0.0);
}

void OffsetAccumulator::add_row(std::int64_t query, std::span<const float> probabilities) {
    require(query >= 0 && query < grid_.size(), "query",
            "must be a grid index, 0 to " + std::to_string(grid_.size() - 1), query);
    require(static_cast<std::int64_t>(probabilities.size()) == grid_.size(), "probabilities",
            "must have " + std::to_string(grid_.size()) + " values, one per grid token", probabilities.size());
    const KeyBins f = key_bins(bins_.f, grid_.f, query / grid_.w / grid_.h);
    const KeyBins h = key_bins(bins_.h, grid_.h, query / grid_.w % grid_.h);
    const KeyBins w = key_bins(bins_.w, grid_.w, query % grid_.w);

    // Whole lines along W are added first (contiguous, so it vectorises) and cut into bins once at the end.
    const std::int32_t width = grid_.w, bins_h = bins_.h.count(), bins_w = bins_.w.count();
    std::vector<double> lines(static_cast<std::size_t>(bins_.f.count()) * bins_h * width, 0.0);
    const float* source = probabilities.data();
    for (const std::int32_t bin_f : f.bin) {
        for (const std::int32_t bin_h : h.bin) {
            double* line = lines.data() + (std::int64_t{bin_f} * bins_h + bin_h) * width;
            for (std::int32_t i = 0; i < width; ++i) line[i] += source[i];
            source += width;
        }
    }
    // Sums of finite floats are finite in double, so this finds any NaN or infinity before a sum is touched.
    if (!std::all_of(lines.begin(), lines.end(), [](double value) { return std::isfinite(value); })) {
        const auto bad =
            std::find_if(probabilities.begin(), probabilities.end(), [](float p) { return !std::isfinite(p); });
        fail("probabilities[" + std::to_string(bad - probabilities.begin()) + "]", "must be finite", *bad);
    }

    std::vector<double> of_row(static_cast<std::size_t>(bins_w));
    for (std::int64_t fh = 0; fh < std::int64_t{bins_.f.count()} * bins_h; ++fh) {
        const double lines_in_bin = f.keys[fh / bins_h] * h.keys[fh % bins_h];
        if (lines_in_bin == 0.0) continue;
        std::fill(of_row.begin(), of_row.end(), 0.0);
        for (std::int32_t i = 0; i < width; ++i) of_row[w.bin[i]] += lines[fh * width + i];
        for (std::int32_t bin = 0; bin < bins_w; ++bin) {
            sum_[fh * bins_w + bin] += whole_units(of_row[bin]);
            pairs_[fh * bins_w + bin] += lines_in_bin * w.keys[bin];
        }
    }
    ++rows_;
}

void OffsetAccumulator::merge(const OffsetAccumulator& other) {
    require(bins_ == other.bins_, "other", "must have the same bins", "different bins");
    require(grid_ == other.grid_, "other", "must have the same grid",
            std::to_string(other.grid_.f) + "x" + std::to_string(other.grid_.h) + "x" + std::to_string(other.grid_.w));
    for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] += other.sum_[i];
        pairs_[i] += other.pairs_[i];
    }
    rows_ += other.rows_;
}

void OffsetAccumulator::add_sums(std::span<const double> sum, std::span<const double> pairs, std::int64_t rows) {
    require(rows >= 0, "rows", "must not be negative", rows);
    for (const auto& [name, values] : {std::pair{"sum", sum}, std::pair{"pairs", pairs}}) {
        require(values.size() == sum_.size(), name, "must have " + std::to_string(sum_.size()) + " values, one per bin",
                values.size());
        const auto bad =
            std::find_if(values.begin(), values.end(), [](double x) { return !(std::isfinite(x) && x >= 0.0); });
        if (bad != values.end()) {
            fail(std::string(name) + "[" + std::to_string(bad - values.begin()) + "]",
                 "must be finite and not negative", *bad);
        }
    }
    for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] += whole_units(sum[i]);
        pairs_[i] += pairs[i];
    }
    rows_ += rows;
}

OffsetKernel OffsetAccumulator::kernel() const {
    OffsetKernel kernel{bins_, std::vector<float>(sum_.size(), 0.0f)};
    for (std::size_t i = 0; i < sum_.size(); ++i) {
        if (pairs_[i] > 0.0) kernel.value[i] = static_cast<float>(sum_[i] / pairs_[i]);
    }
    return kernel;
}

}  // namespace paro
