// Offset kernels: a head's mean attention by grid offset, which rebuilds its block map in any order and density.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paro/axis_order.h"

namespace paro {

// Bin centres along one axis, strictly increasing. Edges that start at 0 mean bins of |offset| ("even"); otherwise the
// offsets are signed. An offset belongs to the nearest edge, a tie to the one nearer 0.
struct AxisBins {
    std::vector<std::int32_t> edges;

    bool even() const { return edges.front() == 0; }
    std::int32_t count() const { return static_cast<std::int32_t>(edges.size()); }
    // Any offset is accepted; beyond the last edge it falls into the outermost bin.
    std::int32_t bin(std::int32_t offset) const;
    friend bool operator==(const AxisBins&, const AxisBins&) = default;
};

// Edges exact as long as a step of one is at least the growth, then growing by about it and ending at size - 1: by 1.35
// they are exact up to 4. Throws Error if size < 1 or growth < 1.
AxisBins even_bins(std::int32_t size, double growth = 1.35);
AxisBins signed_bins(std::int32_t size);

// Of Bins::even: two groups of Wan 14B's 1,600 kernels then fit a file of 8 MB.
inline constexpr std::int64_t kEvenBins = 5500;

struct Bins {
    AxisBins f, h, w;

    std::int64_t size() const { return std::int64_t{f.count()} * h.count() * w.count(); }
    // W fastest.
    std::int64_t index(std::int32_t df, std::int32_t dh, std::int32_t dw) const;
    // The finest even bins of at most kEvenBins in all: every offset where that fits, else edges growing by the least
    // of 1.02, 1.04, ... that does. Fine even bins keep more of exact maps' mass than as many coarse signed ones.
    static Bins even(const Grid& grid);
    static Bins signed_offsets(const Grid& grid);
    friend bool operator==(const Bins&, const Bins&) = default;
};

// Throws Error: an axis without edges, more than 512 edges, edges not strictly increasing or beyond +-2^20, or more
// than 2^22 bins in all.
void validate(const Bins& bins);

// value[bins.index(df, dh, dw)] = mean post-softmax probability per (query, key) pair at that offset (key minus query),
// grid keys only, not renormalised; 0 where never observed.
struct OffsetKernel {
    Bins bins;
    std::vector<float> value;
};

// Throws Error for bad bins, one value too many or too few, or a value that is negative or not finite.
void validate(const OffsetKernel& kernel);

// As saved: code 0 = never observed or zero, else peak * 2^((code - 255) * 24 / 254).
struct KernelCode {
    std::vector<std::uint8_t> code;
    float peak = 0.0f;
    friend bool operator==(const KernelCode&, const KernelCode&) = default;
};

KernelCode quantise(const OffsetKernel& kernel);
// The same kernel in fewer codes, which deflate to a third: steps of 8 (three quarters of an octave) as far down as a
// sixteenth of an even spread over the offsets, at least 12 octaves, and of 32 below. Masks made from it keep the same
// mass to four digits (bench offsets). Peak and zeros stay.
KernelCode coarse(const Bins& bins, KernelCode code);
// Throws Error if the code's size is not bins.size(), or peak is negative or not finite.
OffsetKernel dequantise(const Bins& bins, const KernelCode& code);

// Collects sampled softmax rows of one head; add_row and merge may not run at the same time. Sums are doubles that hold
// whole multiples of 2^-32, so the same rows in any order give the same bits.
class OffsetAccumulator {
   public:
    OffsetAccumulator(const Bins& bins, const Grid& grid);

    // query: grid index in original FHW order. probabilities: grid.size() values, the row's softmax over all keys
    // (prefix and suffix included in the normaliser), restricted to grid keys. Throws Error on a size or range mismatch
    // or a non-finite value; the accumulator is then unchanged.
    void add_row(std::int64_t query, std::span<const float> probabilities);
    void merge(const OffsetAccumulator& other);
    // Adds what was collected elsewhere: per bin the sum of probabilities and the number of (query, key) pairs, from
    // `rows` rows. Throws Error on a size mismatch, or a value that is negative or not finite; nothing is added then.
    void add_sums(std::span<const double> sum, std::span<const double> pairs, std::int64_t rows);

    std::int64_t rows() const { return rows_; }
    // By bin, what add_sums of another accumulator takes: the same bits come back there.
    const std::vector<double>& sum() const { return sum_; }
    const std::vector<double>& pairs() const { return pairs_; }
    const Bins& bins() const { return bins_; }
    const Grid& grid() const { return grid_; }
    OffsetKernel kernel() const;

   private:
    Bins bins_;
    Grid grid_;
    std::vector<double> sum_;
    std::vector<double> pairs_;
    std::int64_t rows_ = 0;
};

}  // namespace paro
