// INT8 block-sparse attention of one query tile, written once over a vector type V. Integer products are exact, so
// every instruction set sees the same scores; what differs is fp32 rounding.
//
//   s    = (q8 . k8) * q_scale[row] * k_scale[block]
//   p    = round(255 * 2^(s - max of s over the block))   unsigned 8 bits, scaled per row and key block
//   o   += p v8 * v_scale[block] * 2^(max - m) / 255      the running maximum m scales accumulators only
//   l   += sum(p) * 2^(max - m) / 255                     sums the rounded p: a constant v comes out exactly
#pragma once

#include "attention_kernels.h"
#include "attention_kernels_vector.h"

namespace paro::cpu {

constexpr float kLog2Of255 = 7.994353437f;
// 2^-12 rounds to 0 as a weight of at most 255.
constexpr float kWeightFloor = -12.0f;
// Below every score: |q8 . k8| is at most 128 * 127 * 127. Half the distance to overflow.
constexpr std::int32_t kNoScore = -(1 << 28);
// Load at kAlign - n for a mask of the first n lanes.
constexpr std::int32_t kLanes[2 * kAlign] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// acc[MR][NV * W] += a[MR][depth] b[depth][NV * W]. Every element is a 32-bit word of `group` integers.
template <class V, int MR, int NV>
void gemm_int8(const std::byte* a, std::int64_t lda, const std::byte* b, std::int64_t ldb, std::int32_t depth,
               typename V::I (&acc)[MR][NV]) {
    using I = typename V::I;
    for (std::int32_t d = 0; d < depth; ++d) {
        I row[NV];
        PARO_UNROLL for (int j = 0; j < NV; ++j) row[j] = V::load_int(b + (d * ldb + j * V::W) * 4);
        PARO_UNROLL for (int r = 0; r < MR; ++r) {
            const I x = V::broadcast(a + (r * lda + d) * 4);
            PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = V::dot(acc[r][j], x, row[j]);
        }
    }
}

template <class V, int MR, int NV>
void scores_int8(const Int8Tile& t, const std::byte* q, const std::byte* k, const std::int32_t* init,
                 std::int32_t column) {
    typename V::I acc[MR][NV];
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = V::load_int(init + column + j * V::W);
    }
    const std::int32_t words = t.head_dim / V::kGroup;
    gemm_int8<V, MR, NV>(q, words, k + column * 4, t.block_kv, words, acc);
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) V::store_int(t.s + r * t.block_kv + column + j * V::W, acc[r][j]);
    }
}

// o = o * alpha + (p v8) * beta
template <class V, int MR, int NV>
void values_int8(const Int8Tile& t, const std::byte* v, std::int32_t depth, float* o, std::int32_t column,
                 const float* alpha, const float* beta) {
    typename V::I acc[MR][NV];
    PARO_UNROLL for (int r = 0; r < MR; ++r) { PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = V::set1_int(0); }
    gemm_int8<V, MR, NV>(static_cast<const std::byte*>(t.p), t.block_kv / V::kGroup, v + column * 4, t.head_dim, depth,
                         acc);
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) {
            float* out = o + r * t.head_dim + column + j * V::W;
            const auto kept = V::mul(V::load(out), V::set1(alpha[r]));
            V::store(out, V::fma(V::to_float(acc[r][j]), V::set1(beta[r]), kept));
        }
    }
}

// round(255 * 2^((s - top) * scale)), between 0 and 255
template <class V>
typename V::I weight_int8(typename V::I s, typename V::I top, typename V::F scale) {
    using F = typename V::F;
    const F y = V::fma(V::to_float(V::sub_int(s, top)), scale, V::set1(kLog2Of255));
    const F x = V::max(V::set1(kWeightFloor), y);
    const F t = V::add(x, V::set1(kRound));
    const F r = V::sub(x, V::sub(t, V::set1(kRound)));
    // Relative error 3e-6: a thousandth of a step at 255.
    F p = V::fma(r, V::set1(9.582853169e-3f), V::set1(5.590642504e-2f));
    p = V::fma(p, r, V::set1(2.402409861e-1f));
    p = V::fma(p, r, V::set1(6.931241934e-1f));
    p = V::fma(p, r, V::set1(1.0f));
    return V::to_int(V::add_exponent(p, t));
}

// Scores of a strip become weights in t.p; alpha scales what the rows have gathered, beta what this block adds.
template <class V, int MR>
void softmax_int8(const Int8Tile& t, std::int64_t block, std::int32_t first, float* alpha, float* beta) {
    using I = typename V::I;
    const std::int32_t tokens = t.tokens[block], cols = (tokens + kAlign - 1) / kAlign * kAlign;
    float* m = t.state.m + first;
    float* l = t.state.l + first;
    std::int32_t top[MR];
    float scale[MR], old_diff[kExpRows], block_diff[kExpRows], block_weight[kExpRows];
    for (int r = 0; r < MR; ++r) {
        std::int32_t* row = t.s + r * t.block_kv;
        for (std::int32_t j = tokens; j < cols; ++j) row[j] = kNoScore;
        I best = V::load_int(row);
        for (std::int32_t j = V::W; j < cols; j += V::W) best = V::max_int(best, V::load_int(row + j));
        top[r] = V::hmax_int(best);
        scale[r] = t.q_scale[first + r] * t.k_scale[block];
        const float block_max = static_cast<float>(top[r]) * scale[r];
        const float next = block_max > m[r] ? block_max : m[r];
        old_diff[r] = m[r] - next;
        block_diff[r] = block_max - next;
        m[r] = next;
    }
    exp2_rows<V>(old_diff, alpha, MR);
    exp2_rows<V>(block_diff, block_weight, MR);
    for (int r = 0; r < MR; ++r) {
        const std::int32_t* row = t.s + r * t.block_kv;
        auto* p = static_cast<std::byte*>(t.p) + std::int64_t{r} * t.block_kv * (4 / V::kGroup);
        I sum = V::set1_int(0);
        for (std::int32_t j = 0; j < cols; j += V::W) {
            I weight = weight_int8<V>(V::load_int(row + j), V::set1_int(top[r]), V::set1(scale[r]));
            if (j + V::W > tokens) {
                const std::int32_t valid = tokens > j ? tokens - j : 0;
                weight = V::and_int(weight, V::load_int(kLanes + kAlign - valid));
            }
            V::store_weight(p + j * (4 / V::kGroup), weight);
            sum = V::add_int(sum, weight);
        }
        const float unit = block_weight[r] * (1.0f / 255.0f);
        l[r] = l[r] * alpha[r] + static_cast<float>(V::hsum_int(sum)) * unit;
        beta[r] = unit * t.v_scale[block];
    }
}

template <class V, int MR>
void attend_strip_int8(const Int8Tile& t, std::int64_t block, std::int32_t first) {
    constexpr std::int32_t step = V::NV * V::W, bytes = 4 / V::kGroup;
    const std::int32_t tokens = t.tokens[block], cols = (tokens + kAlign - 1) / kAlign * kAlign;
    const std::int64_t block_bytes = std::int64_t{t.block_kv} * t.head_dim * bytes;
    const std::byte* q = static_cast<const std::byte*>(t.q) + std::int64_t{first} * t.head_dim * bytes;
    const std::byte* k = static_cast<const std::byte*>(t.k) + block * block_bytes;
    const std::byte* v = static_cast<const std::byte*>(t.v) + block * block_bytes;
    const std::int32_t* init = t.k_init + block * t.block_kv;

    std::int32_t j = 0;
    for (; j + step <= cols; j += step) scores_int8<V, MR, V::NV>(t, q, k, init, j);
    for (; j < cols; j += kAlign) scores_int8<V, MR, kAlign / V::W>(t, q, k, init, j);
    float alpha[kExpRows], beta[kExpRows];
    softmax_int8<V, MR>(t, block, first, alpha, beta);
    float* o = t.state.o + std::int64_t{first} * t.head_dim;
    for (j = 0; j < t.head_dim; j += step) {
        values_int8<V, MR, V::NV>(t, v, (tokens + V::kGroup - 1) / V::kGroup, o, j, alpha, beta);
    }
}

template <class V>
void attend_int8(const Int8Tile& t) {
    for (std::int64_t i = 0; i < t.count; ++i) {
        const std::int64_t block = t.blocks[i];
        std::int32_t r = 0;
        for (; r + 6 <= t.rows; r += 6) attend_strip_int8<V, 6>(t, block, r);
        if (t.rows - r == 4) attend_strip_int8<V, 4>(t, block, r);
        if (t.rows - r == 2) attend_strip_int8<V, 2>(t, block, r);
    }
}

}  // namespace paro::cpu
