// The INT8 softmax of a warp's rows, over scores and weights as the integer products hold them. Scores are sums that
// started from kRoundBits: their bits are floats, off by kRound; |q8 k8| <= 128 * 127 * 127 < 2^22.
#pragma once

#include "ptx.cuh"

namespace paro::cuda {

constexpr float kLog2Of255 = 7.994353437f;

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
    float unit[MT][2];   // of this step's integer weights
};

// Which bytes of a packed word of weights count: keys 16 group + 2t, 2t+1, 8+2t, 8+2t+1.
__device__ __forceinline__ std::uint32_t byte_mask(std::uint64_t valid, int group) {
    const int t = threadIdx.x % 4;
    const auto bits = static_cast<std::uint32_t>(valid >> (16 * group + 2 * t));
    return ((bits & 1) | (bits & 2) << 7 | (bits & 0x100) << 8 | (bits & 0x200) << 15) * 0xffu;
}

// Scores of keys that do not count go below every score.
template <int MT, int NT>
__device__ __forceinline__ void mask_scores(ScoreTiles<MT, NT>& s, const std::uint64_t* valid) {
#pragma unroll
    for (int nt = 0; nt < NT; ++nt) {
        const auto mine = static_cast<std::uint32_t>(valid[nt / 8] >> (nt % 8 * 8 + threadIdx.x % 4 * 2));
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (!((mine >> (i % 2)) & 1)) s[mt][nt][i] = 0;
            }
        }
    }
}

// Weights of keys 32 ks .. that do not count become 0; that of column `ragged`, where ragged >= 0, is multiplied by
// `share`.
template <int MT, int NT>
__device__ __forceinline__ void mask_weights(WeightTiles<MT, NT>& weights, int ks, const std::uint64_t* valid,
                                             int ragged, float share) {
#pragma unroll
    for (int group = 2 * ks; group < 2 * ks + 2; ++group) {
        const std::uint32_t mask = byte_mask(valid[group / 4], group % 4);
        // The byte of a word that holds the column, if this thread's does.
        const int key = ragged - 16 * group, byte = key / 8 * 2 + key % 2;
        const bool mine = ragged >= 0 && key >= 0 && key < 16 && key % 8 / 2 == static_cast<int>(threadIdx.x % 4);
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                std::uint32_t& word = weights[mt][ks][group % 2 * 2 + half];
                word &= mask;
                if (!mine) continue;
                const auto weight = static_cast<float>((word >> (8 * byte)) & 0xff);
                const std::uint32_t scaled = __float_as_uint(fmaf(weight, share, kRound)) & 0xff;
                word = (word & ~(0xffu << (8 * byte))) | scaled << (8 * byte);
            }
        }
    }
}

// How weights come about.
struct WeightOptions {
    int poly = 0;             // eighths of the exponentials that are polynomials on the FMA units
    bool half_exp = false;    // all exponentials in fp16 instead
    bool half_bytes = false;  // to bytes through fp16 instead of by conversion
};

// Four weights of a word: 2^(x factor + offset) of four scores.
template <WeightOptions O>
__device__ __forceinline__ std::uint32_t weigh_word(const float (&x)[4], int word, float factor, float offset) {
    if constexpr (O.half_exp) {
        const std::uint32_t low = exp2_halves(fmaf(x[0], factor, offset), fmaf(x[1], factor, offset));
        const std::uint32_t high = exp2_halves(fmaf(x[2], factor, offset), fmaf(x[3], factor, offset));
        return round_halves(low, high);
    } else {
        float w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            w[i] = (word % 2 * 4 + i) * O.poly % 8 >= 8 - O.poly ? exp2_poly(x[i], factor, offset)
                                                                 : exp2_fast(fmaf(x[i], factor, offset));
        }
        if constexpr (O.half_bytes) return round_weights_halves(w[0], w[1], w[2], w[3]);
        return round_weights(w[0], w[1], w[2], w[3]);
    }
}

// What turns scores into exponents of weights, for each of a thread's rows.
template <int MT>
struct Exponents {
    float factor[MT][2], offset[MT][2];
};

// m moves on to the greatest of s. `bias` is added to every score.
template <int MT, int NT>
__device__ __forceinline__ void find_maxima(Softmax<MT>& state, const ScoreTiles<MT, NT>& s, float2 scale, float bias,
                                            Exponents<MT>& e, RowFactors<MT>& f) {
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Positive floats compare as integers do.
            std::int32_t greatest = s[mt][0][2 * half];
#pragma unroll
            for (int nt = 0; nt < NT; ++nt) {
                greatest = max_of_three(greatest, s[mt][nt][2 * half], s[mt][nt][2 * half + 1]);
            }
            greatest = max(greatest, __shfl_xor_sync(0xffffffffu, greatest, 1));
            greatest = max(greatest, __shfl_xor_sync(0xffffffffu, greatest, 2));
            const float top = __int_as_float(greatest);
            const float factor = state.q_scale[mt][half] * scale.x;
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
            f.unit[mt][half] = (rises ? 1.0f : distance) * (1.0f / 255.0f);
            f.beta[mt][half] = f.unit[mt][half] * scale.y;
        }
    }
}

// Weights of keys 32 ks ..
template <int MT, int NT, WeightOptions O = WeightOptions{}>
__device__ __forceinline__ void weigh_keys(const ScoreTiles<MT, NT>& s, int ks, const Exponents<MT>& e,
                                           WeightTiles<MT, NT>& weights) {
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
#pragma unroll
        for (int group = 2 * ks; group < 2 * ks + 2; ++group) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float x[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) x[i] = __int_as_float(s[mt][2 * group + i / 2][2 * half + i % 2]);
                weights[mt][ks][group % 2 * 2 + half] = weigh_word<O>(x, group, e.factor[mt][half], e.offset[mt][half]);
            }
        }
    }
}

}  // namespace paro::cuda
