// fp32 block-sparse attention of one query tile, written once over a vector type V. V lives in an anonymous namespace
// of its unit, which keeps every instance of these templates local to it.
#pragma once

#include "cpu/attention_kernels.h"
#include "cpu/attention_kernels_vector.h"

namespace paro::cpu {

// c[MR][NV * W] = c * alpha + a[MR][depth] b[depth][NV * W]; alpha null: c = a b. Both products have this form.
template <class V, int MR, int NV>
void gemm_fp32(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, std::int32_t depth, float* c,
               std::int64_t ldc, const float* alpha) {
    using F = typename V::F;
    F acc[MR][NV];
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) {
            acc[r][j] = alpha ? V::mul(V::load(c + r * ldc + j * V::W), V::set1(alpha[r])) : V::set1(0.0f);
        }
    }
    for (std::int32_t d = 0; d < depth; ++d) {
        F row[NV];
        PARO_UNROLL for (int j = 0; j < NV; ++j) row[j] = V::load(b + d * ldb + j * V::W);
        PARO_UNROLL for (int r = 0; r < MR; ++r) {
            const F x = V::set1(a[r * lda + d]);
            PARO_UNROLL for (int j = 0; j < NV; ++j) acc[r][j] = V::fma(x, row[j], acc[r][j]);
        }
    }
    PARO_UNROLL for (int r = 0; r < MR; ++r) {
        PARO_UNROLL for (int j = 0; j < NV; ++j) V::store(c + r * ldc + j * V::W, acc[r][j]);
    }
}

// The same over the first `cols` columns of b, a multiple of kAlign; b has b_rows x b_cols elements in panels.
template <class V, int MR>
void gemm_fp32_cols(const float* a, std::int64_t lda, const float* b, std::int64_t b_rows, std::int32_t b_cols,
                    std::int32_t depth, float* c, std::int64_t ldc, const float* alpha, std::int32_t cols) {
    for (std::int32_t first = 0; first < cols; first += kPanel<V>) {
        const float* panel = b + first * b_rows;
        const std::int32_t width = b_cols - first < kPanel<V> ? b_cols - first : kPanel<V>;
        const std::int32_t used = cols - first < width ? cols - first : width;
        std::int32_t j = 0;
        for (; j + kTile<V> <= used; j += kTile<V>) {
            gemm_fp32<V, MR, V::NV>(a, lda, panel + j, width, depth, c + first + j, ldc, alpha);
        }
        for (; j < used; j += kAlign) {
            gemm_fp32<V, MR, kAlign / V::W>(a, lda, panel + j, width, depth, c + first + j, ldc, alpha);
        }
    }
}

// Scores become weights in place; alpha[r] scales what row r has gathered so far.
template <class V, int MR>
void softmax_fp32(float* s, std::int64_t lds, std::int32_t cols, float* m, float* l, float* alpha) {
    using F = typename V::F;
    F joined[kRowLanes];
    for (int r = 0; r < kRowLanes; ++r) joined[r] = V::set1(0.0f);
    for (int r = 0; r < MR; ++r) {
        const float* row = s + r * lds;
        joined[r] = V::load(row);
        for (std::int32_t j = V::W; j < cols; j += V::W) joined[r] = V::max(joined[r], V::load(row + j));
    }
    float top[kStripLanes], sum[kStripLanes];
    V::max_rows(joined, top);
    for (int r = 0; r < kRowLanes; r += V::W) {
        const F old = V::load(m + r), next = V::max(V::load(top + r), old);  // NaN keeps old; the weights carry it on
        V::store(m + r, next);
        V::store(alpha + r, exp2_fp32<V>(V::sub(old, next)));
    }
    for (int r = 0; r < MR; ++r) {
        float* row = s + r * lds;
        const F next = V::set1(m[r]);
        joined[r] = V::set1(0.0f);
        for (std::int32_t j = 0; j < cols; j += V::W) {
            const F p = exp2_fp32<V>(V::sub(V::load(row + j), next));
            V::store(row + j, p);
            joined[r] = V::add(joined[r], p);
        }
    }
    V::sum_rows(joined, sum);
    for (int r = 0; r < kRowLanes; r += V::W) {
        V::store(l + r, V::add(V::mul(V::load(l + r), V::load(alpha + r)), V::load(sum + r)));
    }
}

template <class V, int MR>
void attend_strip_fp32(const Fp32Tile& t, std::int64_t block, std::int32_t first) {
    const std::int32_t tokens = t.tokens[block];
    const std::int32_t cols = (tokens + kAlign - 1) / kAlign * kAlign;
    const float* k = t.k + block * t.head_dim * t.block_kv;
    const float* v = t.v + block * t.block_kv * t.head_dim;
    gemm_fp32_cols<V, MR>(t.q + std::int64_t{first} * t.head_dim, t.head_dim, k, t.head_dim, t.block_kv, t.head_dim,
                          t.s, t.block_kv, nullptr, cols);
    for (int r = 0; r < MR; ++r) {
        float* row = t.s + r * t.block_kv;
        if (t.bias) {
            const float* bias = t.bias + block * t.block_kv;
            for (std::int32_t j = 0; j < cols; j += V::W) {
                V::store(row + j, V::add(V::load(row + j), V::load(bias + j)));
            }
        }
        for (std::int32_t j = tokens; j < cols; ++j) row[j] = kMinusInfinity;
    }
    float alpha[kStripLanes];
    const std::int32_t lane = first / kStripRows * kStripLanes;
    softmax_fp32<V, MR>(t.s, t.block_kv, cols, t.state.m + lane, t.state.l + lane, alpha);
    gemm_fp32_cols<V, MR>(t.s, t.block_kv, v, t.block_kv, t.head_dim, tokens,
                          t.state.o + std::int64_t{first} * t.head_dim, t.head_dim, alpha, t.head_dim);
}

// Blocks outside, strips inside: a block of k and v comes from afar once and stays in the near cache for all strips.
template <class V>
void attend_fp32(const Fp32Tile& t) {
    for (std::int64_t i = 0; i < t.count; ++i) {
        const std::int64_t block = t.blocks[i];
        std::int32_t r = 0;
        for (; r + 6 <= t.rows; r += 6) attend_strip_fp32<V, 6>(t, block, r);
        if (t.rows - r == 4) attend_strip_fp32<V, 4>(t, block, r);
        if (t.rows - r == 2) attend_strip_fp32<V, 2>(t, block, r);
    }
}

}  // namespace paro::cpu
