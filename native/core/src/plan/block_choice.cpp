#include "plan/block_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "paro/error.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define PARO_SSE2 1
#endif

namespace paro {

namespace {

// What one pass over the values tells about two bounds.
struct Pass {
    std::int64_t above = 0;            // values > high
    std::vector<float> near;           // values in low .. high,
    std::vector<std::uint32_t> index;  // and where they stand, ascending
    double all = 0.0;                  // sum of all values
};

// The values of up to 32 neighbours against a bound, as bits, with the sums of those above it and of all. Sums of 32
// lose nothing in float.
struct Word {
    std::uint32_t bits = 0;
    float inside = 0.0f, all = 0.0f;
};

#if defined(PARO_SSE2)
float sum_of(__m128 lanes) {
    const __m128 pairs = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps(pairs, pairs, 1)));
}

// The part of `count` that whole instructions take; every x86-64 has them, compilers do not find the movemask.
std::int64_t compare_lanes(const float* value, std::int64_t count, float bound, Word& word) {
    const __m128 bounds = _mm_set1_ps(bound);
    __m128 inside = _mm_setzero_ps(), all = _mm_setzero_ps();
    std::int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const __m128 v = _mm_loadu_ps(value + i), over = _mm_cmpgt_ps(v, bounds);
        word.bits |= static_cast<std::uint32_t>(_mm_movemask_ps(over)) << i;
        inside = _mm_add_ps(inside, _mm_and_ps(over, v));
        all = _mm_add_ps(all, v);
    }
    word.inside = sum_of(inside);
    word.all = sum_of(all);
    return i;
}
#else
std::int64_t compare_lanes(const float*, std::int64_t, float, Word&) { return 0; }
#endif

Word compare(const float* value, std::int64_t count, float bound) {
    Word word;
    for (std::int64_t i = compare_lanes(value, count, bound, word); i < count; ++i) {
        const bool over = value[i] > bound;
        word.bits |= static_cast<std::uint32_t>(over) << i;
        word.inside += over ? value[i] : 0.0f;
        word.all += value[i];
    }
    return word;
}

Pass look_between(std::span<const float> value, float low, float high) {
    Pass pass;
    const auto size = static_cast<std::int64_t>(value.size());
    const float below_low = std::nextafter(low, -std::numeric_limits<float>::infinity());
    for (std::int64_t first = 0; first < size; first += 32) {
        const std::int64_t count = std::min<std::int64_t>(32, size - first);
        const Word over = compare(value.data() + first, count, high);
        pass.above += std::popcount(over.bits);
        pass.all += over.all;
        std::uint32_t between = compare(value.data() + first, count, below_low).bits & ~over.bits;
        for (; between != 0; between &= between - 1) {
            const std::int64_t at = first + std::countr_zero(between);
            pass.near.push_back(value[at]);
            pass.index.push_back(static_cast<std::uint32_t>(at));
        }
    }
    // A value that is not finite makes its sum so; a sum of finite values that overflows is looked at too.
    if (!std::isfinite(pass.all)) {
        for (const float v : value) require(std::isfinite(v), "map.value", "must be finite", v);
    }
    return pass;
}

std::int64_t blocks_at(double density, std::size_t blocks) {
    require(density > 0.0 && density <= 1.0, "density", "must be above 0 and at most 1", density);
    const auto all = static_cast<std::int64_t>(blocks);
    return std::min<std::int64_t>(all, std::llround(density * static_cast<double>(all)));
}

// Bounds between which the wanted-th greatest value very likely lies, from evenly spread values.
std::pair<float, float> likely_bounds(std::span<const float> value, std::int64_t wanted) {
    constexpr std::size_t kStep = 61;  // prime: rows have no period in common with it
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    if (value.size() < 64 * kStep) return {-kInfinity, kInfinity};
    std::vector<float> sample;
    for (std::size_t i = kStep / 2; i < value.size(); i += kStep) sample.push_back(value[i]);
    // Four standard deviations of how many of the sample lie above the bound; values that are not finite are found
    // later.
    for (float& v : sample) v = std::isfinite(v) ? v : 0.0f;
    const double share = static_cast<double>(wanted) / static_cast<double>(value.size());
    const auto size = static_cast<double>(sample.size());
    const double place = share * size, spread = 4.0 * std::sqrt(size * share * (1.0 - share)) + 2.0;
    const auto at = [&](double rank) {
        const auto nth = sample.begin() + static_cast<std::int64_t>(rank);
        std::nth_element(sample.begin(), nth, sample.end(), std::greater<>());
        return *nth;
    };
    const float high = place - spread < 0.0 ? kInfinity : at(place - spread);
    const float low = place + spread >= size ? -kInfinity : at(place + spread);
    return {low, high};
}

// The wanted-th greatest value splits the blocks: those above it are in, and of those equal to it the first ones.
struct Split {
    float least = std::numeric_limits<float>::infinity();
    std::vector<std::uint32_t> ties;  // indices, ascending
    double all = 0.0;
};

Split split(std::span<const float> value, std::int64_t wanted) {
    const auto [low, high] = likely_bounds(value, wanted);
    Pass pass = look_between(value, low, high);
    std::int64_t rest = wanted - pass.above;
    if (wanted > 0 && (rest < 1 || rest > static_cast<std::int64_t>(pass.near.size()))) {
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        pass = look_between(value, -kInfinity, kInfinity);
        rest = wanted;
    }
    Split result;
    result.all = pass.all;
    if (wanted <= 0) return result;
    std::vector<float> sorted = pass.near;
    std::nth_element(sorted.begin(), sorted.begin() + (rest - 1), sorted.end(), std::greater<>());
    result.least = sorted[rest - 1];
    std::int64_t ties =
        rest - std::count_if(sorted.begin(), sorted.begin() + rest, [&](float v) { return v > result.least; });
    for (std::size_t i = 0; i < pass.near.size() && ties > 0; ++i) {
        if (pass.near[i] != result.least) continue;
        result.ties.push_back(pass.index[i]);
        --ties;
    }
    return result;
}

}  // namespace

BlockChoice choose_blocks(std::span<const float> value, std::int64_t rows, std::int64_t cols, double density) {
    const Split parts = split(value, blocks_at(density, value.size()));
    BlockChoice choice{BlockMask(rows, cols), 0.0, parts.all};
    std::vector<std::uint32_t> bits(static_cast<std::size_t>(choice.mask.words_per_row()));
    auto tie = parts.ties.begin();
    for (std::int64_t row = 0; row < rows; ++row) {
        const float* own = value.data() + row * cols;
        std::uint32_t any = 0;
        for (std::int64_t first = 0; first < cols; first += 32) {
            const Word word = compare(own + first, std::min<std::int64_t>(32, cols - first), parts.least);
            choice.inside += word.inside;
            any |= bits[first / 32] = word.bits;
        }
        for (; tie != parts.ties.end() && *tie < (row + 1) * cols; ++tie) {
            const auto col = static_cast<std::int64_t>(*tie) - row * cols;
            bits[col / 32] |= 1u << (col % 32);
            any = 1;
            choice.inside += parts.least;
        }
        if (any == 0) {
            const std::int64_t best = std::max_element(own, own + cols) - own;
            bits[best / 32] |= 1u << (best % 32);
            choice.inside += own[best];
        }
        choice.mask.set_row(row, bits);
    }
    return choice;
}

std::vector<double> retained_at(std::span<const float> value, std::span<const double> densities) {
    std::vector<double> result;
    for (const double density : densities) {
        const Split parts = split(value, blocks_at(density, value.size()));
        double inside = 0.0;
        for (const std::uint32_t tie : parts.ties) inside += value[tie];
        for (std::size_t first = 0; first < value.size(); first += 32) {
            const auto count = static_cast<std::int64_t>(std::min<std::size_t>(32, value.size() - first));
            inside += compare(value.data() + first, count, parts.least).inside;
        }
        result.push_back(parts.all > 0.0 ? inside / parts.all : 1.0);
    }
    return result;
}

}  // namespace paro
