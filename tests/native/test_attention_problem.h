// A random attention problem: layout, plan, data in any dtype and memory layout, the run and its fp64 reference.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "paro/attention.h"
#include "reference.h"
#include "tolerances.h"

namespace paro {

// Nearest, ties to even, by arithmetic alone: independent of the conversions under test.
inline std::uint16_t encode_half(double x, DType dtype) {
    const int mantissa = dtype == DType::f16 ? 10 : 7, lowest = dtype == DType::f16 ? -14 : -126;
    const int bias = dtype == DType::f16 ? 15 : 127, infinity = dtype == DType::f16 ? 31 : 255;
    const std::uint32_t sign = std::signbit(x) ? 0x8000u : 0u;
    if (std::isnan(x)) return static_cast<std::uint16_t>(sign | (infinity << mantissa) | (1 << (mantissa - 1)));
    const double magnitude = std::fabs(x);
    const int exponent = magnitude == 0.0 ? lowest : std::max(std::ilogb(magnitude), lowest);
    if (std::isinf(x) || exponent > bias) return static_cast<std::uint16_t>(sign | (infinity << mantissa));
    // In units of the last place; a carry into the next exponent comes out right by itself.
    const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, mantissa - exponent)));
    const std::uint32_t base = static_cast<std::uint32_t>(exponent - lowest) << mantissa;
    return static_cast<std::uint16_t>(sign | std::min(base + units, static_cast<std::uint32_t>(infinity << mantissa)));
}

inline double decode_half(std::uint16_t h, DType dtype) {
    if (dtype == DType::bf16) return std::bit_cast<float>(std::uint32_t{h} << 16);
    const int exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    double x = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
    if (exponent == 31) {
        x = mantissa ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    }
    return h & 0x8000 ? -x : x;
}

// A tensor (batch, heads, tokens, head_dim) in memory, as (B,H,N,D) or as the (B,N,H*D) view that models hand over.
class Tensor {
   public:
    Tensor(std::int32_t batch, std::int32_t heads, std::int64_t tokens, std::int32_t head_dim, DType dtype,
           bool interleaved)
        : dtype_(dtype), bytes_(static_cast<std::size_t>(batch * heads * tokens * head_dim * size()), 0xff) {
        stride_b = heads * tokens * head_dim;
        stride_h = interleaved ? head_dim : tokens * head_dim;
        stride_n = interleaved ? heads * head_dim : head_dim;
    }

    void set(std::int64_t at, double x) {
        if (dtype_ == DType::f32) {
            const auto value = static_cast<float>(x);
            std::memcpy(&bytes_[at * 4], &value, 4);
        } else {
            const std::uint16_t value = encode_half(x, dtype_);
            std::memcpy(&bytes_[at * 2], &value, 2);
        }
    }
    double get(std::int64_t at) const {
        if (dtype_ == DType::f32) {
            float value;
            std::memcpy(&value, &bytes_[at * 4], 4);
            return value;
        }
        std::uint16_t value;
        std::memcpy(&value, &bytes_[at * 2], 2);
        return decode_half(value, dtype_);
    }
    std::int64_t at(std::int64_t b, std::int64_t h, std::int64_t n, std::int64_t d) const {
        return b * stride_b + h * stride_h + n * stride_n + d;
    }
    void* data() { return bytes_.data(); }
    const std::vector<std::uint8_t>& bytes() const { return bytes_; }

    std::int64_t stride_b = 0, stride_h = 0, stride_n = 0;

   private:
    std::int64_t size() const { return dtype_ == DType::f32 ? 4 : 2; }
    DType dtype_;
    std::vector<std::uint8_t> bytes_;
};

struct Problem {
    TokenLayout layout{0, {3, 8, 8}, 0};
    std::int32_t block_q = 64, block_kv = 64, batch = 1, heads = 2, head_dim = 64;
    double density = 1.0;
    bool tail = false, interleaved = true;
    DType dtype = DType::f32;
    Precision precision = Precision::fp32;
    int threads = 2;
    std::uint32_t seed = 1;
    AxisOrder first_order = AxisOrder::FHW;  // further heads take the orders that follow
    // Changes the normal data: (tensor 'q' 'k' 'v', batch * heads + head, token, channel, value) -> value
    std::function<double(char, std::int64_t, std::int64_t, std::int32_t, double)> shape;

    Plan plan() const {
        std::mt19937 random(seed);
        const BlockLayout q = block_layout(layout, block_q), kv = block_layout(layout, block_kv);
        std::vector<HeadPlan> plans;
        for (std::int32_t h = 0; h < heads; ++h) {
            HeadPlan head;
            head.order = kAxisOrders[(static_cast<std::size_t>(first_order) + h) % kAxisOrders.size()];
            head.mask = BlockMask(q.grid_blocks, kv.grid_blocks);
            head.density = density;
            for (std::int64_t r = 0; r < q.grid_blocks; ++r) {
                for (std::int64_t c = 0; c < kv.grid_blocks; ++c) head.mask.set(r, c, random() < density * 0x1p32);
                if (head.mask.row_count(r) == 0) head.mask.set(r, r % kv.grid_blocks);
            }
            plans.push_back(head);
        }
        return make_plan(layout, block_q, block_kv, plans);
    }

    Tensor tensor() const { return {batch, heads, layout.length(), head_dim, dtype, interleaved}; }

    Tensor random_tensor(char name) const {
        std::mt19937 random(seed * 7919u + static_cast<unsigned char>(name));
        std::normal_distribution<double> normal;
        Tensor t = tensor();
        for (std::int64_t bh = 0; bh < batch * heads; ++bh) {
            for (std::int64_t n = 0; n < layout.length(); ++n) {
                for (std::int32_t d = 0; d < head_dim; ++d) {
                    const double x = normal(random);
                    t.set(t.at(bh / heads, bh % heads, n, d), shape ? shape(name, bh, n, d, x) : x);
                }
            }
        }
        return t;
    }

    AttentionParams params(Tensor& q, Tensor& k, Tensor& v, Tensor& o, const Plan& plan) const {
        AttentionParams p;
        p.q = {q.data(), q.stride_b, q.stride_h, q.stride_n};
        p.k = {k.data(), k.stride_b, k.stride_h, k.stride_n};
        p.v = {v.data(), v.stride_b, v.stride_h, v.stride_n};
        p.o = {o.data(), o.stride_b, o.stride_h, o.stride_n};
        p.dtype = dtype;
        p.batch = batch;
        p.heads = heads;
        p.head_dim = head_dim;
        p.plan = &plan;
        p.precision = precision;
        p.tail = tail;
        p.threads = threads;
        return p;
    }

    Tensor run() const {
        const Plan made = plan();
        Tensor q = random_tensor('q'), k = random_tensor('k'), v = random_tensor('v'), o = tensor();
        attention_cpu(params(q, k, v, o, made));
        return o;
    }

    // (batch * heads)[tokens][head_dim], one after another
    std::vector<double> values(const Tensor& t) const {
        std::vector<double> result;
        for (std::int64_t bh = 0; bh < batch * heads; ++bh) append(t, bh, result);
        return result;
    }

    std::vector<double> expected() const {
        const Plan made = plan();
        const Tensor q = random_tensor('q'), k = random_tensor('k'), v = random_tensor('v');
        std::vector<double> result;
        for (std::int64_t bh = 0; bh < batch * heads; ++bh) {
            std::vector<double> hq, hk, hv;
            append(q, bh, hq);
            append(k, bh, hk);
            append(v, bh, hv);
            const auto o = reference::attention(made, static_cast<std::int32_t>(bh % heads), head_dim, hq, hk, hv,
                                                1.0 / std::sqrt(head_dim), tail);
            result.insert(result.end(), o.begin(), o.end());
        }
        return result;
    }

    double error() const { return tolerances::relative_error(values(run()), expected()); }
    double bound(tolerances::Data data = tolerances::Data::normal) const {
        return tolerances::attention(precision, dtype, data);
    }

   private:
    void append(const Tensor& t, std::int64_t bh, std::vector<double>& to) const {
        for (std::int64_t n = 0; n < layout.length(); ++n) {
            for (std::int32_t d = 0; d < head_dim; ++d) to.push_back(t.get(t.at(bh / heads, bh % heads, n, d)));
        }
    }
};

// Sets the instruction set for a scope.
class ScopedIsa {
   public:
    explicit ScopedIsa(Isa isa) : before_(active_isa()) { set_isa(isa); }
    ~ScopedIsa() { set_isa(before_); }
    ScopedIsa(const ScopedIsa&) = delete;
    ScopedIsa& operator=(const ScopedIsa&) = delete;

   private:
    Isa before_;
};

}  // namespace paro
