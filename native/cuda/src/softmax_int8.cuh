// The INT8 softmax of a warp's rows, over scores and weights as the integer products hold them. Scores are sums that
// started from kRoundBits: their bits are floats, off by kRound; |q8 k8| <= 128 * 127 * 127 < 2^22.
#pragma once

#include "ptx.cuh"

namespace paro::cuda {

constexpr float kLog2Of255 = 7.994353437f;
constexpr std::int32_t kMinusInfinity = static_cast<std::int32_t>(0xff800000);

// MT tiles of 16 rows, NT tiles of 8 keys. A thread's rows: 16 mt + 8 half + lane % 32 / 4 at [mt][half].
template <int MT, int NT>
using ScoreTiles = std::int32_t[MT][NT][4];
template <int MT, int NT>
using WeightTiles = std::uint32_t[MT][NT / 4][4];  // [mt][32 keys][a operand]

template <int MT>
struct Softmax {
    float m[MT][2], l[MT][2], q_scale[MT][2];
};

// Factors of a step for each of a thread's rows.
template <int MT>
struct RowFactors {
    float alpha[MT][2];  // of what was gathered so far
    float beta[MT][2];   // of this step's integer sums
    float unit[MT][2];   // of this step's integer weights: 255 times too large, in o as in l
};

// Most of the time no row of a warp has a new maximum: o then keeps its scale.
template <int MT, int NT>
__device__ __forceinline__ void rescale(float (&o)[MT][NT][4], const RowFactors<MT>& f) {
    bool same = true;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) same = same && f.alpha[mt][0] == 1.0f && f.alpha[mt][1] == 1.0f;
    if (__all_sync(0xffffffffu, same)) return;
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) o[mt][nt][i] *= f.alpha[mt][i / 2];
        }
    }
}

// l and shift, what unsigned values add to o, take in the sum of a step's integer weights of a row.
template <int MT>
__device__ __forceinline__ void add_weight_sum(float& l, float& shift, const RowFactors<MT>& f, int mt, int half,
                                               float sum) {
    l = fmaf(l, f.alpha[mt][half], sum * f.unit[mt][half]);
    shift = fmaf(shift, f.alpha[mt][half], sum * f.beta[mt][half]);
}

// What a pooled key adds to its score: log2 of the tokens it stands for.
template <int BLOCK>
constexpr float kPooledBias = BLOCK == 64 ? 6.0f : 7.0f;

// Scores of keys that do not count become -inf: below every score, and their weights 0.
template <int MT>
__device__ __forceinline__ void mask_scores(ScoreTiles<MT, 8>& s, std::uint64_t valid) {
#pragma unroll
    for (int nt = 0; nt < 8; ++nt) {
        const auto mine = static_cast<std::uint32_t>(valid >> (nt * 8 + threadIdx.x % 4 * 2));
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (!((mine >> (i % 2)) & 1)) s[mt][nt][i] = kMinusInfinity;
            }
        }
    }
}

// The weights of column `column` are multiplied by `share`.
template <int MT, int NT>
__device__ __forceinline__ void scale_column(WeightTiles<MT, NT>& weights, int column, float share) {
#pragma unroll
    for (int group = 0; group < NT / 2; ++group) {
        // The byte of a word that holds the column, if this thread's does: a word's keys are 16 group + 2t, 2t+1, 8+2t,
        // 8+2t+1.
        const int key = column - 16 * group, byte = key / 8 * 2 + key % 2;
        if (key < 0 || key >= 16 || key % 8 / 2 != static_cast<int>(threadIdx.x % 4)) continue;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                std::uint32_t& word = weights[mt][group / 2][group % 2 * 2 + half];
                const auto weight = static_cast<float>((word >> (8 * byte)) & 0xff);
                const std::uint32_t scaled = __float_as_uint(fmaf(weight, share, kRound)) & 0xff;
                word = (word & ~(0xffu << (8 * byte))) | scaled << (8 * byte);
            }
        }
    }
}

// What turns scores into exponents of weights, for each of a thread's rows.
template <int MT>
struct Exponents {
    float factor[MT][2], offset[MT][2];
};

// The greatest of a thread's scores in its rows half = 0, 1.
template <int NT>
__device__ __forceinline__ void row_max(const std::int32_t (&s)[NT][4], std::int32_t (&greatest)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        // Positive floats compare as integers do. Two chains, since each waits for itself.
        std::int32_t even = s[0][2 * half], odd = s[1][2 * half];
#pragma unroll
        for (int nt = 0; nt < NT; nt += 2) {
            even = max_of_three(even, s[nt][2 * half], s[nt][2 * half + 1]);
            odd = max_of_three(odd, s[nt + 1][2 * half], s[nt + 1][2 * half + 1]);
        }
        greatest[half] = max(even, odd);
    }
}

// m moves on to the greatest score of a row, of which each of four threads knows its part. `bias` is added to every
// score.
template <int MT>
__device__ __forceinline__ void update_maxima(Softmax<MT>& state, std::int32_t (&greatest)[MT][2], float2 scale,
                                              float bias, Exponents<MT>& e, RowFactors<MT>& f) {
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            std::int32_t& most = greatest[mt][half];
            most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = max(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float top = __int_as_float(most);
            // Not 0, where all queries or keys are: -inf times it would be NaN. NaN stays.
            const float factor = max_or_nan(state.q_scale[mt][half] * scale.x, 1e-30f);
            e.factor[mt][half] = factor;
            // Rounded down: with large factors the greatest weight could otherwise come out as 256 and wrap. What it
            // lacks, all weights of the row lack alike.
            e.offset[mt][half] = __fmaf_rd(-top, factor, kLog2Of255);
            const float block_max = fmaf(top - kRound, factor, bias), old = state.m[mt][half];
            state.m[mt][half] = fmaxf(block_max, old);  // NaN keeps old; unit carries it on
            // One of the two is 1, so one exponential does.
            const float distance = exp2_fast(-fabsf(block_max - old));
            const bool rises = block_max > old;
            f.alpha[mt][half] = rises ? distance : 1.0f;
            f.unit[mt][half] = rises ? 1.0f : distance;
            f.beta[mt][half] = f.unit[mt][half] * scale.y;
        }
    }
}

// The four scores of word w of a row tile's weights: row half w % 2 of keys 16 (w / 2) + 2t, 2t+1, 8+2t, 8+2t+1. First
// their exponentials in place, then those as bytes.
template <int NT>
__device__ __forceinline__ void exponentiate_word(std::int32_t (&s)[NT][4], int w, const float (&factor)[2],
                                                  const float (&offset)[2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        std::int32_t& x = s[w / 2 * 2 + i / 2][w % 2 * 2 + i % 2];
        x = __float_as_int(exp2_fast(fmaf(__int_as_float(x), factor[w % 2], offset[w % 2])));
    }
}
template <int NT>
__device__ __forceinline__ std::uint32_t pack_word(const std::int32_t (&s)[NT][4], int w) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __int_as_float(s[w / 2 * 2 + i / 2][w % 2 * 2 + i % 2]);
    return round_weights(x[0], x[1], x[2], x[3]);
}

// Scores start from kRoundBits. The second makes it of exponentials, so that the compiler can put it among them: as a
// constant it would stand where the next product waits for it.
template <int NT>
__device__ __forceinline__ void init_scores(ScoreTiles<1, NT>& s) {
#pragma unroll
    for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[0][nt][i] = kRoundBits;
    }
}
template <int NT>
__device__ __forceinline__ void reinit_scores(ScoreTiles<1, NT>& s) {
#pragma unroll
    for (int nt = 0; nt < NT; ++nt) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[0][nt][i] = __float_as_int(fmaf(__int_as_float(s[0][nt][i]), 0.0f, kRound));
    }
}

template <int NT>
__device__ __forceinline__ void sum_weights(const WeightTiles<1, NT>& weights, std::uint32_t (&sum)[2]) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int ks = 0; ks < NT / 4; ++ks) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i % 2] = __dp4a(weights[0][ks][i], 0x01010101u, sum[i % 2]);
    }
}

}  // namespace paro::cuda
