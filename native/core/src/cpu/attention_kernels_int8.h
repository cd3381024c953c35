// INT8 block-sparse attention of one query tile, written once over a vector type V. Integer products are exact, so
// every instruction set sees the same scores; what differs is fp32 rounding.
//
//   s    = (q8 . k8) * q_scale[row] * k_scale[block]
//   p    = round(255 * 2^(s - max of s over the block))   unsigned 8 bits, scaled per row and key block
//   o   += p v8 * v_scale[block] * 2^(max - m) / 255      the running maximum m scales accumulators only
//   l   += sum(p) * 2^(max - m) / 255                     sums the rounded p: a constant v comes out exactly
#pragma once

#include "cpu/attention_kernels.h"
#include "cpu/attention_kernels_vector.h"

namespace paro::cpu {

constexpr float kLog2Of255 = 7.994353437f;
// 2^-12 rounds to 0 as a weight of at most 255.
constexpr float kWeightFloor = -12.0f;
// Below every score: |q8 . k8| is at most 128 * 127 * 127. Half the distance to overflow.
constexpr std::int32_t kNoScore = -(1 << 28);
// Load at kAlign - n for a mask of the first n lanes.
constexpr std::int32_t kLanes[2 * kAlign] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// c[MR][NV * W] = init + a[MR][depth] b[depth][NV * W], init a row or null for 0. Every element of a and b is a 32-bit
// word of `group` numbers. The sums of p v go through memory as well: with their scaling in here GCC 12 runs out of
// registers in the loop, which costs more than twice the time.
template <class V, int MR, int NV>
void gemm_int8(const std::byte* a, std::int64_t lda, const std::byte* b, std::int64_t ldb, std::int32_t depth,
               const std::int32_t* init, std::int32_t* c, std::int64_t ldc) {
    using I = typename V::I;
    typename V::Acc acc[MR][NV];
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] =
            V::start(init ? V::load_int(init + j * V::W) : V::set1_int(0));
    }
    for (std::int32_t d = 0; d < depth; ++d) {
        I row[NV];
        PARO_UNROLL for (int j = 0; j < NV; ++j) row[j] = V::load_int(b + (d * ldb + j * V::W) * 4);
        PARO_UNROLL for (int r = 0; r < MR; ++r) {
            const I x = V::broadcast(a + (r * lda + d) * 4);
            PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = V::dot(acc[r][j], x, row[j]);
        }
    }
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) V::store_int(c + r * ldc + j * V::W, V::finish(acc[r][j]));
    }
}

// The same over the first `cols` columns of b, a multiple of kAlign; b has b_rows x b_cols words in panels.
template <class V, int MR>
void gemm_int8_cols(const std::byte* a, std::int64_t lda, const std::byte* b, std::int64_t b_rows, std::int32_t b_cols,
                    std::int32_t depth, const std::int32_t* init, std::int32_t* c, std::int64_t ldc,
                    std::int32_t cols) {
    for (std::int32_t first = 0; first < cols; first += kPanel<V>) {
        const std::byte* panel = b + first * b_rows * 4;
        const std::int32_t width = b_cols - first < kPanel<V> ? b_cols - first : kPanel<V>;
        const std::int32_t end = first + (cols - first < width ? cols - first : width);
        std::int32_t j = first;
        for (; j + kTile<V> <= end; j += kTile<V>, panel += kTile<V> * 4) {
            gemm_int8<V, MR, V::NV>(a, lda, panel, width, depth, init ? init + j : nullptr, c + j, ldc);
        }
        for (; j < end; j += kAlign, panel += kAlign * 4) {
            gemm_int8<V, MR, kAlign / V::W>(a, lda, panel, width, depth, init ? init + j : nullptr, c + j, ldc);
        }
    }
}

// o = o * alpha + sums * beta
template <class V, int MR>
void add_values(const std::int32_t* sums, std::int32_t head_dim, float* o, const float* alpha, const float* beta) {
    for (int r = 0; r < MR; ++r) {
        const auto old = V::set1(alpha[r]), unit = V::set1(beta[r]);
        for (std::int32_t j = r * head_dim; j < (r + 1) * head_dim; j += V::W) {
            V::store(o + j, V::fma(V::to_float(V::load_int(sums + j)), unit, V::mul(V::load(o + j), old)));
        }
    }
}

// round(255 * 2^((s - top) * scale)), between 0 and 255
template <class V>
typename V::I weight_int8(typename V::I s, typename V::I top, typename V::F scale) {
    using F = typename V::F;
    const F y = V::fma(V::to_float(V::sub_int(s, top)), scale, V::set1(kLog2Of255));
    F r;
    const F n = V::split(V::kAnyExponent ? y : V::max(V::set1(kWeightFloor), y), r);
    // Relative error 3e-6: a thousandth of a step at 255.
    F p = V::fma(r, V::set1(9.582853169e-3f), V::set1(5.590642504e-2f));
    p = V::fma(p, r, V::set1(2.402409861e-1f));
    p = V::fma(p, r, V::set1(6.931241934e-1f));
    p = V::fma(p, r, V::set1(1.0f));
    return V::to_int(V::scale(p, n));
}

// Scores of a strip become weights in t.p; alpha scales what the rows have gathered, beta what this block adds.
template <class V, int MR>
void softmax_int8(const Int8Tile& t, std::int64_t block, std::int32_t first, float* alpha, float* beta) {
    using F = typename V::F;
    using I = typename V::I;
    const std::int32_t tokens = t.tokens[block], cols = (tokens + kAlign - 1) / kAlign * kAlign;
    const std::int32_t lane = first / kStripRows * kStripLanes;
    float *m = t.state.m + lane, *l = t.state.l + lane;
    I joined[kRowLanes];
    for (int r = 0; r < kRowLanes; ++r) joined[r] = V::set1_int(0);
    for (int r = 0; r < MR; ++r) {
        std::int32_t* row = t.s + r * t.block_kv;
        for (std::int32_t j = tokens; j < cols; ++j) row[j] = kNoScore;
        joined[r] = V::load_int(row);
        for (std::int32_t j = V::W; j < cols; j += V::W) joined[r] = V::max_int(joined[r], V::load_int(row + j));
    }
    std::int32_t top[kStripLanes], sum[kStripLanes];
    float scale[kStripLanes], unit[kStripLanes];
    V::max_rows(joined, top);
    for (int r = 0; r < kRowLanes; r += V::W) {
        const F s = V::mul(V::load(t.q_scale + lane + r), V::set1(t.k_scale[block]));
        const F block_max = V::mul(V::to_float(V::load_int(top + r)), s), old = V::load(m + r);
        const F next = V::max(block_max, old);  // NaN keeps old; unit carries it on
        const F u = V::mul(exp2_fp32<V>(V::sub(block_max, next)), V::set1(1.0f / 255.0f));
        V::store(m + r, next);
        V::store(scale + r, s);
        V::store(unit + r, u);
        V::store(alpha + r, exp2_fp32<V>(V::sub(old, next)));
        V::store(beta + r, V::mul(u, V::set1(t.v_scale[block])));
    }
    for (int r = 0; r < MR; ++r) {
        const std::int32_t* row = t.s + r * t.block_kv;
        auto* p = static_cast<std::byte*>(t.p) + std::int64_t{r} * t.block_kv * (4 / V::kGroup);
        const I row_top = V::set1_int(top[r]);
        const F row_scale = V::set1(scale[r]);
        joined[r] = V::set1_int(0);
        for (std::int32_t j = 0; j < cols; j += V::W) {
            I weight = weight_int8<V>(V::load_int(row + j), row_top, row_scale);
            if (j + V::W > tokens) {
                const std::int32_t valid = tokens > j ? tokens - j : 0;
                weight = V::and_int(weight, V::load_int(kLanes + kAlign - valid));
            }
            V::store_weight(p + j * (4 / V::kGroup), weight);
            joined[r] = V::add_int(joined[r], weight);
        }
    }
    V::sum_rows(joined, sum);
    for (int r = 0; r < kRowLanes; r += V::W) {
        const F gained = V::mul(V::to_float(V::load_int(sum + r)), V::load(unit + r));
        V::store(l + r, V::add(V::mul(V::load(l + r), V::load(alpha + r)), gained));
    }
}

template <class V, int MR>
void attend_strip_int8(const Int8Tile& t, std::int64_t block, std::int32_t first) {
    constexpr std::int32_t bytes = 4 / V::kGroup;
    const std::int32_t tokens = t.tokens[block], cols = (tokens + kAlign - 1) / kAlign * kAlign;
    const std::int64_t block_bytes = std::int64_t{t.block_kv} * t.head_dim * bytes;
    const std::byte* q = static_cast<const std::byte*>(t.q) + std::int64_t{first} * t.head_dim * bytes;
    const std::byte* k = static_cast<const std::byte*>(t.k) + block * block_bytes;
    const std::byte* v = static_cast<const std::byte*>(t.v) + block * block_bytes;
    const std::int32_t words = t.head_dim / V::kGroup;
    gemm_int8_cols<V, MR>(q, words, k, words, t.block_kv, words, t.k_init + block * t.block_kv, t.s, t.block_kv, cols);
    float alpha[kStripLanes], beta[kStripLanes];
    softmax_int8<V, MR>(t, block, first, alpha, beta);
    gemm_int8_cols<V, MR>(static_cast<const std::byte*>(t.p), t.block_kv / V::kGroup, v, t.block_kv / V::kGroup,
                          t.head_dim, (tokens + V::kGroup - 1) / V::kGroup, nullptr, t.s, t.head_dim, t.head_dim);
    add_values<V, MR>(t.s, t.head_dim, t.state.o + std::int64_t{first} * t.head_dim, alpha, beta);
}

// Three loops around the strips. A band of rows keeps its part of o in the first-level cache over many blocks; a chunk
// of blocks comes from afar once and stays in the second-level cache for all bands.
template <class V>
void attend_int8(const Int8Tile& t) {
    constexpr std::int32_t band_bytes = 12 << 10, chunk_bytes = 256 << 10;
    const std::int32_t band = band_bytes / (4 * t.head_dim);
    const std::int64_t chunk = chunk_bytes / (2 * t.block_kv * t.head_dim * (4 / V::kGroup)) + 1;
    for (std::int64_t begin = 0; begin < t.count; begin += chunk) {
        const std::int64_t end = begin + chunk < t.count ? begin + chunk : t.count;
        for (std::int32_t first = 0; first < t.rows; first += band) {
            const std::int32_t last = first + band < t.rows ? first + band : t.rows;
            for (std::int64_t i = begin; i < end; ++i) {
                std::int32_t r = first;
                for (; r + 6 <= last; r += 6) attend_strip_int8<V, 6>(t, t.blocks[i], r);
                if (last - r == 4) attend_strip_int8<V, 4>(t, t.blocks[i], r);
                if (last - r == 2) attend_strip_int8<V, 2>(t, t.blocks[i], r);
            }
        }
    }
}

}  // namespace paro::cpu
