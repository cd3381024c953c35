// Offset-kernel sums from sampled queries (paro/offset_kernel.h). The first launch finds every row's maximum and sum
// over all keys, the second goes over the grid's keys again and bins probabilities: reading k twice moves fewer bytes
// than storing scores. Bins are integers, so neither the order of CTAs nor of atomics shows in a bit.
#include "kernel.cuh"
#include "samples.cuh"

namespace paro::cuda {
namespace {

constexpr int kStages = kObserveStages;

struct Range {
    std::int32_t begin, end;  // keys
    __device__ std::int32_t tiles() const { return (end - begin + kScoreKeys - 1) / kScoreKeys; }
};
// The part of `keys` keys that split `split` takes, cut at whole tiles.
__device__ __forceinline__ Range split_keys(std::int32_t keys, std::int32_t split, std::int32_t splits) {
    const std::int32_t tiles = (keys + kScoreKeys - 1) / kScoreKeys;
    const auto at = [&](std::int32_t s) { return static_cast<std::int32_t>(std::int64_t{s} * tiles / splits); };
    return {at(split) * kScoreKeys, min(keys, at(split + 1) * kScoreKeys)};
}

// Tile `tile` of keys first .. end - 1 of the sequence.
template <class T, int D>
__device__ __forceinline__ void copy_keys(const AttentionParams& p, std::int32_t slot, std::int32_t first,
                                          std::int32_t end, std::uint32_t to) {
    using Rows = RowCopy<T, D, kScoreKeys>;
    const std::int32_t key = first + Rows::row();
    Rows::copy(head_rows<T>(p.k, p, slot), p.k.stride_n, key < end ? key : -1, to);
}

template <class T, int D>
__device__ __forceinline__ void observe_rows_body(const ObserveParams& p) {
    PARO_DYNAMIC_SHARED(shared);
    const SampleParams& sample = p.sample;
    const std::int32_t index = static_cast<std::int32_t>(blockIdx.x), number = index / sample.splits;
    const SampleItem item(sample, number);
    const Range keys = split_keys(sample.base.layout.length(), index - number * sample.splits, sample.splits);
    const std::uint32_t ring = shared_address(shared);
    constexpr int stage_bytes = kScoreKeys * D * 2;
    copy_samples<T, D>(sample, item, ring + (kStages - 1) * stage_bytes);

    HeldQueries<D, 1> q;
    const float scale = sample.base.sm_scale * kLog2E;
    float m[2] = {minus_infinity(), minus_infinity()}, l[2] = {};
    stream_tiles<kStages>(
        keys.tiles(), [&] { q.load(ring + (kStages - 1) * stage_bytes); },
        [&](int t, int stage) {
            copy_keys<T, D>(sample.base, item.slot, keys.begin + t * kScoreKeys, keys.end, ring + stage * stage_bytes);
        },
        [&](int t, int stage) {
            TileScores<1> s;
            score_tile<T, D, 1>(q, ring + stage * stage_bytes, s);
            mask_columns<1>(s, keys.end - keys.begin - t * kScoreKeys);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float top = minus_infinity();
#pragma unroll
                for (int nt = 0; nt < kScoreTiles; ++nt) {
                    top = fmaxf(top, fmaxf(s[0][nt][2 * half], s[0][nt][2 * half + 1]));
                }
                const float next = fmaxf(m[half], quad_max(top) * scale), base = exponent_base(next);
                l[half] *= exp2_fast(m[half] - base);
                m[half] = next;
#pragma unroll
                for (int nt = 0; nt < kScoreTiles; ++nt) {
                    l[half] += exp2_fast(fmaf(s[0][nt][2 * half], scale, -base)) +
                               exp2_fast(fmaf(s[0][nt][2 * half + 1], scale, -base));
                }
            }
        });
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float sum = quad_sum(l[half]);
        if (lane % 4 == 0) p.partial[std::int64_t{index} * kSampleRows + row + 8 * half] = make_float2(m[half], sum);
    }
}

// log2 of a row's sum of exponentials over all keys; +infinity where the row does not count.
__device__ float row_log_sum(const ObserveParams& p, std::int32_t number, const SampleItem& item, std::int32_t row) {
    const float none = __int_as_float(0x7f800000);
    if (item.place(p.sample, row) < 0) return none;
    const float2* partial = p.partial + std::int64_t{number} * p.sample.splits * kSampleRows + row;
    float top = minus_infinity(), sum = 0.0f;
    for (std::int32_t s = 0; s < p.sample.splits; ++s) top = fmaxf(top, partial[s * kSampleRows].x);
    for (std::int32_t s = 0; s < p.sample.splits; ++s) {
        const float2 part = partial[s * kSampleRows];
        sum += part.y * exp2_fast(part.x - exponent_base(top));
    }
    const float result = top + log2f(sum);
    return is_finite(result) ? result : none;
}

// Counts pairs and rows of one head: they depend on places alone.
__device__ void count_pairs(const ObserveParams& p, std::int32_t head, std::int32_t* counts, int room) {
    constexpr int most = kSampleRows;
    __shared__ std::int32_t places[most];
    const SampleParams& sample = p.sample;
    const std::int32_t axes = p.bins[0] + p.bins[1] + p.bins[2], all = p.all_bins();
    const std::int32_t sides = sample.sides[0] + sample.sides[1] + sample.sides[2];
    const int group = min(most, room / axes), thread = threadIdx.x;
    std::uint64_t* pairs = p.pairs + std::int64_t{head} * all;
    std::int64_t counted = 0;
    for (std::int32_t first = 0; first < sample.queries; first += group) {
        const int rows = min(group, sample.queries - first);
        for (int r = thread; r < rows; r += kScoreThreads) {
            const std::int32_t column = first + r, entry = column * sample.base.batch / sample.queries;
            const SampleItem whole(sample, (entry * sample.base.heads + head) * sample.row_tiles);
            const std::int32_t tile = (column - whole.first) / kSampleRows;
            const std::int32_t number = (entry * sample.base.heads + head) * sample.row_tiles + tile;
            const SampleItem item(sample, number);
            const std::int32_t row = column - item.first;
            places[r] = is_finite(row_log_sum(p, number, item, row)) ? item.place(sample, row) : -1;
        }
        for (int i = thread; i < rows * axes; i += kScoreThreads) counts[i] = 0;
        __syncthreads();
        for (int i = thread; i < rows * sides; i += kScoreThreads) {
            const int r = i / sides;
            if (places[r] < 0) continue;
            const GridPlace at(sample.base, places[r]);
            std::int32_t key = i - r * sides, table = 0, before = 0, own = at.f, side = sample.sides[0];
            if (key >= side) {
                key -= side, table = 2 * side - 1, before = p.bins[0], own = at.h, side = sample.sides[1];
                if (key >= side) {
                    key -= side, table += 2 * side - 1, before += p.bins[1], own = at.w, side = sample.sides[2];
                }
            }
            atomicAdd(counts + r * axes + before + p.tables[table + key - own + side - 1], 1);
        }
        __syncthreads();
        for (std::int32_t bin = thread; bin < all; bin += kScoreThreads) {
            const std::int32_t fh = bin / p.bins[2], w = bin - fh * p.bins[2];
            const std::int32_t f = fh / p.bins[1], h = fh - f * p.bins[1];
            std::uint64_t sum = 0;
            for (int r = 0; r < rows; ++r) {
                const std::int32_t* own = counts + r * axes;
                sum += std::uint64_t{static_cast<std::uint32_t>(own[f] * own[p.bins[0] + h])} *
                       static_cast<std::uint32_t>(own[p.bins[0] + p.bins[1] + w]);
            }
            if (sum != 0) pairs[bin] += sum;
        }
        if (thread == 0) {
            for (int r = 0; r < rows; ++r) counted += places[r] >= 0;
        }
        __syncthreads();
    }
    if (thread != 0) return;
    p.rows[2 * head] += counted;
    p.rows[2 * head + 1] += sample.queries - counted;
}

// Probabilities of one CTA: the low 32 bits of a bin in shared memory, what they carry straight to global memory.
struct Bins {
    std::uint32_t* low;  // null where there is no room
    unsigned long long* total;

    __device__ __forceinline__ void add(std::int32_t bin, float probability) const {
        const std::uint32_t units = __float2uint_rn(probability * 4294967296.0f);
        if (units == 0) return;
        if (low == nullptr) {
            atomicAdd(total + bin, static_cast<unsigned long long>(units));
            return;
        }
        const std::uint32_t old = atomicAdd(low + bin, units);
        if (old + units < old) atomicAdd(total + bin, 1ull << 32);
    }
};

struct KeyPlaces {
    int4 key[kStages][kScoreKeys];  // f, h, w
};

// The offset bins that a thread's two rows see.
struct RowBins {
    std::int32_t f[2], h[2], w[2];  // places in the tables of the offset to coordinate 0
    std::int32_t line[2], line_f = -1, line_h = -1;

    __device__ RowBins(const ObserveParams& p, const SampleItem& item, int row) {
        const std::int32_t* sides = p.sample.sides;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const GridPlace at(p.sample.base, max(0, item.place(p.sample, row + 8 * half)));
            f[half] = sides[0] - 1 - at.f;
            h[half] = 2 * sides[0] - 1 + sides[1] - 1 - at.h;
            w[half] = 2 * sides[0] - 1 + 2 * sides[1] - 1 + sides[2] - 1 - at.w;
        }
    }
    // Goes to the line of keys (f, h): most neighbours are in the same.
    __device__ __forceinline__ void go(const ObserveParams& p, const std::int32_t* tables, const int4& key) {
        if (key.x == line_f && key.y == line_h) return;
        line_f = key.x;
        line_h = key.y;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            line[half] = (tables[f[half] + key.x] * p.bins[1] + tables[h[half] + key.y]) * p.bins[2];
        }
    }
    __device__ __forceinline__ std::int32_t bin(const std::int32_t* tables, int half, std::int32_t key_w) const {
        return line[half] + tables[w[half] + key_w];
    }
};

// s: probabilities of keys first .. first + count - 1 of the grid.
__device__ __forceinline__ void bin_tile(const ObserveParams& p, const Bins& bins, const std::int32_t* tables,
                                         RowBins& rows, const int4* keys, const TileScores<1>& s, int count) {
#pragma unroll
    for (int nt = 0; nt < kScoreTiles; ++nt) {
        const int column = 8 * nt + threadIdx.x % 4 * 2;
        if (column >= count) break;
        const bool both = column + 1 < count;
        const int4 one = keys[column], two = keys[both ? column + 1 : column];
        std::int32_t at[2][2];
        rows.go(p, tables, one);
#pragma unroll
        for (int half = 0; half < 2; ++half) at[half][0] = rows.bin(tables, half, one.z);
        rows.go(p, tables, two);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            at[half][1] = rows.bin(tables, half, two.z);
            const float x = s[0][nt][2 * half], y = both ? s[0][nt][2 * half + 1] : 0.0f;
            if (at[half][0] == at[half][1]) {
                bins.add(at[half][0], x + y);
            } else {
                bins.add(at[half][0], x);
                bins.add(at[half][1], y);
            }
        }
    }
}

__device__ __forceinline__ void keep_tile(const ObserveParams& p, const SampleItem& item, int row, std::int32_t first,
                                          const TileScores<1>& s, int count) {
    const std::int32_t kept = p.kept == nullptr ? -1 : p.kept[item.head];
    if (kept < 0) return;
    const std::int64_t queries = p.sample.queries, grid = p.sample.base.layout.grid;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (row + 8 * half >= item.count) continue;
        __half* to = static_cast<__half*>(p.kept_rows) + (kept * queries + item.first + row + 8 * half) * grid + first;
#pragma unroll
        for (int nt = 0; nt < kScoreTiles; ++nt) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int column = 8 * nt + threadIdx.x % 4 * 2 + i;
                if (column < count) to[column] = __float2half(s[0][nt][2 * half + i]);
            }
        }
    }
}

// bins_shared, tables_shared: 0 where they stay in global memory.
template <class T, int D>
__device__ __forceinline__ void observe_bins_body(const ObserveParams& p, std::int32_t bins_shared,
                                                  std::int32_t tables_shared) {
    PARO_DYNAMIC_SHARED(shared);
    __shared__ KeyPlaces places;
    __shared__ float log_sum[kSampleRows];
    constexpr int stage_bytes = kScoreKeys * D * 2;
    const SampleParams& sample = p.sample;
    const std::int32_t heads = sample.base.heads, thread = threadIdx.x;
    // Pairs first: they take long and run beside the rest.
    if (static_cast<std::int32_t>(blockIdx.x) < heads) {
        count_pairs(p, static_cast<std::int32_t>(blockIdx.x), reinterpret_cast<std::int32_t*>(shared),
                    observe_ring_bytes(D) / 4);
        return;
    }
    const std::int32_t index = static_cast<std::int32_t>(blockIdx.x) - heads, number = index / sample.splits;
    const SampleItem item(sample, number);
    const Range keys = split_keys(sample.base.layout.grid, index - number * sample.splits, sample.splits);
    const std::uint32_t ring = shared_address(shared);
    copy_samples<T, D>(sample, item, ring + (kStages - 1) * stage_bytes);

    Bins bins{nullptr, reinterpret_cast<unsigned long long*>(p.sums) + std::int64_t{item.head} * p.all_bins()};
    auto* words = reinterpret_cast<std::uint32_t*>(shared + observe_ring_bytes(D));
    const std::int32_t* tables = p.tables;
    if (bins_shared > 0) {
        bins.low = words;
        for (int i = thread; i < bins_shared; i += kScoreThreads) words[i] = 0;
    }
    if (tables_shared > 0) {
        auto* own = reinterpret_cast<std::int32_t*>(words + bins_shared);
        for (int i = thread; i < tables_shared; i += kScoreThreads) own[i] = p.tables[i];
        tables = own;
    }
    if (thread < kSampleRows) log_sum[thread] = row_log_sum(p, number, item, thread);

    const int row = thread / 32 * 16 + thread % 32 / 4;
    RowBins rows(p, item, row);
    HeldQueries<D, 1> q;
    float base[2];
    const float scale = sample.base.sm_scale * kLog2E;
    stream_tiles<kStages>(
        keys.tiles(),
        [&] {
            q.load(ring + (kStages - 1) * stage_bytes);
            base[0] = log_sum[row], base[1] = log_sum[row + 8];
        },
        [&](int t, int stage) {
            const std::int32_t first = keys.begin + t * kScoreKeys, prefix = sample.base.layout.prefix;
            copy_keys<T, D>(sample.base, item.slot, prefix + first, prefix + keys.end, ring + stage * stage_bytes);
            if (thread < kScoreKeys && first + thread < keys.end) {
                const GridPlace at(sample.base, first + thread);
                places.key[stage][thread] = make_int4(at.f, at.h, at.w, 0);
            }
        },
        [&](int t, int stage) {
            TileScores<1> s;
            score_tile<T, D, 1>(q, ring + stage * stage_bytes, s);
#pragma unroll
            for (int nt = 0; nt < kScoreTiles; ++nt) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    // Rows that do not count may hold NaN: their base is +infinity.
                    s[0][nt][i] = is_finite(base[i / 2]) ? exp2_fast(fmaf(s[0][nt][i], scale, -base[i / 2])) : 0.0f;
                }
            }
            const int count = keys.end - keys.begin - t * kScoreKeys;
            bin_tile(p, bins, tables, rows, places.key[stage], s, count);
            keep_tile(p, item, row, keys.begin + t * kScoreKeys, s, count);
        });
    for (int i = thread; i < bins_shared; i += kScoreThreads) {
        if (words[i] != 0) atomicAdd(bins.total + i, static_cast<unsigned long long>(words[i]));
    }
}

}  // namespace

#define PARO_OBSERVE(T, D)                                                                                       \
    PARO_KERNEL(paro_observe_rows_##T##_d##D, (kScoreThreads), (const __grid_constant__ ObserveParams p),        \
                observe_rows_body<T, D>(p))                                                                      \
    PARO_KERNEL(paro_observe_bins_##T##_d##D, (kScoreThreads),                                                   \
                (const __grid_constant__ ObserveParams p, std::int32_t bins_shared, std::int32_t tables_shared), \
                observe_bins_body<T, D>(p, bins_shared, tables_shared))
PARO_OBSERVE(bf16, 128)
PARO_OBSERVE(bf16, 64)
PARO_OBSERVE(f16, 128)
PARO_OBSERVE(f16, 64)

}  // namespace paro::cuda
