// The kernels that observe, run on a CPU, against the core's accumulator and fp64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "observe_problem.h"

namespace paro {
namespace {

struct Observed {
    std::vector<std::uint64_t> sums, pairs;
    std::vector<std::int64_t> rows;
    std::vector<std::uint16_t> kept;
};

// Bins of every offset of an axis, as the kernels look them up.
std::vector<std::int32_t> offset_tables(const Bins& bins, const Grid& grid) {
    std::vector<std::int32_t> tables;
    const AxisBins* axes[] = {&bins.f, &bins.h, &bins.w};
    for (int axis = 0; axis < 3; ++axis) {
        const std::int32_t side = grid.sides()[axis];
        for (std::int32_t d = 1 - side; d < side; ++d) tables.push_back(axes[axis]->bin(d));
    }
    return tables;
}

Observed observe(const Sampled& sampled, const Bins& bins, const std::vector<std::int32_t>& places, int calls = 1,
                 const std::vector<std::int32_t>& kept = {}) {
    const Problem& problem = sampled.problem;
    Tensor q = problem.random_tensor('q'), k = problem.random_tensor('k'), v = problem.random_tensor('v');
    cuda::ObserveParams p{};
    p.sample = sampled.params(q, k, v, places);
    const std::vector<std::int32_t> tables = offset_tables(bins, problem.layout.grid);
    p.tables = tables.data();
    p.bins[0] = bins.f.count(), p.bins[1] = bins.h.count(), p.bins[2] = bins.w.count();
    Observed result;
    const std::size_t all = static_cast<std::size_t>(problem.heads * bins.size());
    result.sums.assign(all, 0);
    result.pairs.assign(all, 0);
    result.rows.assign(static_cast<std::size_t>(2 * problem.heads), 0);
    const auto slots = static_cast<std::size_t>(std::count_if(kept.begin(), kept.end(), [](auto x) { return x >= 0; }));
    result.kept.assign(slots * sampled.queries * problem.layout.grid.size(), 0xffff);
    p.sums = result.sums.data(), p.pairs = result.pairs.data(), p.rows = result.rows.data();
    p.kept = kept.empty() ? nullptr : kept.data();
    p.kept_rows = result.kept.data();
    std::vector<unsigned char> scratch(cuda::observe_bytes(p), 0xff);
    cuda::place_observe(p, scratch.data());
    for (int i = 0; i < calls; ++i) cuda::launch_observe(p, nullptr);
    return result;
}

struct Case {
    TokenLayout layout;
    std::int32_t head_dim, batch, queries;
    DType dtype;
    bool interleaved, is_signed;
};

// Ragged tiles, one frame, one block, long text, more than 64 queries, fewer queries than batch entries, several
// splits.
const std::vector<Case> kCases = {
    {{0, {3, 8, 11}, 0}, 128, 1, 24, DType::bf16, true, false},
    {{3, {1, 9, 13}, 5}, 64, 2, 70, DType::f16, false, true},
    {{226, {2, 7, 9}, 0}, 64, 1, 65, DType::bf16, true, false},
    {{0, {2, 3, 4}, 0}, 128, 3, 2, DType::f16, true, true},
    {{0, {1, 1, 1}, 1}, 64, 1, 1, DType::bf16, true, false},
    {{7, {5, 13, 17}, 9}, 64, 2, 33, DType::bf16, true, true},
};

double kernel_distance(const std::vector<float>& ours, const std::vector<float>& theirs) {
    double worst = 0.0, top = 0.0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        worst = std::max(worst, std::fabs(double{ours[i]} - theirs[i]));
        top = std::max(top, double{theirs[i]});
    }
    return worst / top;
}

}  // namespace

TEST_CASE("emulated observing gives the core's offset kernels") {
    const std::size_t index = GENERATE(range(std::size_t{0}, kCases.size()));
    CAPTURE(index);
    const Case& c = kCases[index];
    Sampled sampled{observe_problem(c.layout, c.head_dim, c.dtype, c.batch, c.interleaved), c.queries};
    const Grid& grid = c.layout.grid;
    const Bins bins = c.is_signed ? Bins::signed_offsets(grid) : Bins::even(grid);
    const std::vector<std::int32_t> places = sampled.places(), kept = {-1, 0};
    const Observed once = observe(sampled, bins, places, 1, kept), twice = observe(sampled, bins, places, 2, kept);
    const Tensor q = sampled.problem.random_tensor('q'), k = sampled.problem.random_tensor('k');
    for (std::int32_t h = 0; h < sampled.problem.heads; ++h) {
        OffsetAccumulator core(bins, grid), ours(bins, grid);
        double kept_error = 0.0;
        for (std::int32_t i = 0; i < c.queries; ++i) {
            const std::int32_t place = places[h * c.queries + i];
            const std::vector<double> p =
                Sampled::softmax(sampled.scores(q, k, sampled.entry(i), h, c.layout.prefix + place));
            const auto first = p.begin() + c.layout.prefix;
            const std::vector<float> row(first, first + grid.size());
            core.add_row(place, row);
            for (std::int64_t g = 0; g < grid.size() && h == 1; ++g) {
                const double x = decode_half(once.kept[i * grid.size() + g], DType::f16);
                kept_error = std::max(kept_error, std::fabs(x - row[g]));
            }
        }
        CHECK(kept_error < 6e-4);
        std::vector<double> sum, pairs;
        const std::int64_t all = bins.size();
        for (std::int64_t b = 0; b < all; ++b) {
            sum.push_back(static_cast<double>(once.sums[h * all + b]) * 0x1p-32);
            pairs.push_back(static_cast<double>(once.pairs[h * all + b]));
            REQUIRE(twice.sums[h * all + b] == 2 * once.sums[h * all + b]);
            REQUIRE(twice.pairs[h * all + b] == 2 * once.pairs[h * all + b]);
        }
        ours.add_sums(sum, pairs, once.rows[2 * h]);
        CHECK(once.rows[2 * h] == c.queries);
        CHECK(once.rows[2 * h + 1] == 0);
        CHECK(ours.rows() == core.rows());
        const double distance = kernel_distance(ours.kernel().value, core.kernel().value);
        INFO("largest difference " << distance << " of the peak");
        CHECK(distance < 1e-5);
        // Mass of each bin, and with it the pairs.
        double mass = 0.0;
        for (const double s : sum) mass += s;
        CHECK(mass < c.queries * (1 + 1e-6));
    }
}

TEST_CASE("emulated observing leaves out rows that are not finite, and places that are none") {
    Sampled sampled{observe_problem({2, {3, 5, 7}, 3}, 64, DType::f16, 1, true), 20};
    const Bins bins = Bins::even(sampled.problem.layout.grid);
    std::vector<std::int32_t> places = sampled.places();
    places[3] = 60, places[7] = 60;
    for (std::size_t i = 0; i < places.size(); ++i) places[i] = i == 3 || i == 7 || places[i] != 60 ? places[i] : 61;
    const Observed good = observe(sampled, bins, places);
    std::vector<std::int32_t> wrong = places;
    wrong[5] = -1, wrong[6] = 105, wrong[30] = std::numeric_limits<std::int32_t>::max();
    const Observed outside = observe(sampled, bins, wrong);
    CHECK(outside.rows == std::vector<std::int64_t>{18, 2, 19, 1});
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto before = sampled.problem.shape;
    sampled.problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'q' && bh == 0 && n == 62 && d == 9 ? nan : before(t, bh, n, d, x);
    };
    const Observed bad = observe(sampled, bins, places);
    CHECK(bad.rows == std::vector<std::int64_t>{18, 2, 20, 0});
    const auto total = [&](const std::vector<std::uint64_t>& x, std::size_t head) {
        const auto all = static_cast<std::size_t>(bins.size());
        double sum = 0.0;
        for (std::size_t i = head * all; i < (head + 1) * all; ++i) sum += static_cast<double>(x[i]);
        return sum;
    };
    CHECK(total(bad.pairs, 0) == 18 * 105);
    CHECK(total(outside.pairs, 1) == 19 * 105);
    CHECK(total(bad.sums, 0) < total(good.sums, 0));
    CHECK(total(bad.sums, 1) == total(good.sums, 1));
    sampled.problem.shape = [=](char t, std::int64_t bh, std::int64_t n, std::int32_t d, double x) {
        return t == 'k' && bh == 1 && n == 1 && d == 9 ? nan : before(t, bh, n, d, x);
    };
    CHECK(observe(sampled, bins, places).rows == std::vector<std::int64_t>{20, 0, 0, 20});
}

TEST_CASE("emulated observing: one key takes all") {
    // Probabilities of 1 fill the low words of their bins and carry.
    Sampled sampled{observe_problem({0, {2, 8, 8}, 0}, 64, DType::f16, 1, true), 40};
    sampled.problem.shape = [](char, std::int64_t, std::int64_t n, std::int32_t d, double) {
        const std::int64_t at = d < 7 ? (n >> d) & 1 : 0;
        return d < 7 ? (at ? 24.0 : -24.0) : 0.0;
    };
    const Bins bins = Bins::even(sampled.problem.layout.grid);
    const Observed seen = observe(sampled, bins, sampled.places());
    CHECK(static_cast<double>(seen.sums[0]) * 0x1p-32 > 39.999);
    CHECK(static_cast<double>(seen.sums[0]) * 0x1p-32 <= 40.0);
}

TEST_CASE("emulated observing refuses what it cannot take") {
    Sampled sampled{observe_problem({0, {2, 3, 4}, 0}, 64, DType::f32, 1, true), 4};
    const Bins bins = Bins::even(sampled.problem.layout.grid);
    const std::vector<std::int32_t> places = sampled.places();
    CHECK_THROWS_WITH(observe(sampled, bins, places), "dtype must be float16 or bfloat16 to observe (got float32)");
    sampled.problem.dtype = DType::f16;
    sampled.queries = 0;
    CHECK_THROWS_WITH(observe(sampled, bins, places), "queries must be 1 to 4096 a head (got 0)");
}

}  // namespace paro
