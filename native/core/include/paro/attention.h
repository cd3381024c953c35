// Block-sparse attention on the CPU: what runs without a GPU, and the oracle for the GPU kernels.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "paro/plan.h"

namespace paro {

enum class DType : std::uint8_t { f32, f16, bf16 };
enum class Precision : std::uint8_t { fp32, int8 };
enum class Isa : std::uint8_t { scalar, avx2, avx512, avx512_vnni };

// (batch, heads, tokens, head_dim) with any strides counted in elements; head_dim contiguous. (B, N, H*D) views fit.
struct TensorView {
    const void* data = nullptr;
    std::int64_t stride_b = 0, stride_h = 0, stride_n = 0;
};

struct OutputView {
    void* data = nullptr;
    std::int64_t stride_b = 0, stride_h = 0, stride_n = 0;
};

struct AttentionParams {
    TensorView q, k, v;  // tokens in original order, plan->layout.length() of them
    OutputView o;        // written in original order
    DType dtype = DType::f32;
    std::int32_t batch = 1, heads = 1, head_dim = 64;  // head_dim 64 or 128
    float sm_scale = 0.0f;                             // <= 0: 1 / sqrt(head_dim)
    const Plan* plan = nullptr;                        // heads entries
    Precision precision = Precision::fp32;
    bool tail = false;
    int threads = 0;  // <= 0: hardware concurrency
};

// o = softmax(q k^T * sm_scale) v over the plan's blocks; with tail every skipped grid key block adds one pooled term,
// exp(q . mean(k) * sm_scale + log n) * mean(v) (Sol-Attn, arXiv 2607.24027). Throws Error naming the argument.
void attention_cpu(const AttentionParams& params);

// The instruction set that attention_cpu uses, chosen at first use from what the CPU and the OS offer.
Isa active_isa();
std::vector<Isa> available_isas();
std::string_view to_string(Isa isa);
// For tests and benchmarks. Throws Error if the CPU lacks it.
void set_isa(Isa isa);

}  // namespace paro
