// Packing for the CPU attention: gather by a head's order with any strides and dtype, key shift, quantise, pooled keys
// and values; prefix, grid and suffix each padded to whole blocks. And the way back to the tokens' original places.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "cpu/attention_kernels.h"
#include "paro/token_layout.h"

namespace paro::cpu {

constexpr std::size_t kCacheLine = 64;
// Pooled keys stand in panels of this many, which the fp32 kernel takes for key blocks.
constexpr std::int32_t kPooledPanel = 64;

// Where row r of a query tile stands among what strips keep per row.
constexpr std::int32_t strip_lane(std::int32_t r) { return r / kStripRows * kStripLanes + r % kStripRows; }
constexpr std::int32_t strip_lanes(std::int32_t rows) { return (rows + kStripRows - 1) / kStripRows * kStripLanes; }

// Uninitialised memory on cache lines.
class AlignedBuffer {
   public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t bytes)
        : data_(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kCacheLine}))) {}
    std::byte* data() const { return data_.get(); }

   private:
    struct Free {
        void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kCacheLine}); }
    };
    std::unique_ptr<std::byte, Free> data_;
};

// Hands out pieces of one allocation; with base null it only counts.
class Carver {
   public:
    explicit Carver(std::byte* base) : base_(base) {}
    template <class T>
    T* take(std::int64_t count) {
        std::byte* at = base_ ? base_ + used_ : nullptr;
        used_ += (static_cast<std::size_t>(count) * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine;
        return reinterpret_cast<T*>(at);
    }
    std::size_t used() const { return used_; }

   private:
    std::byte* base_;
    std::size_t used_ = 0;
};

// The numerics of int8. What stands in brackets is exact but for fp32 rounding and only makes the rounding to 8 bits
// kinder:
//   k8 = round(H [k - shift] / k_scale[block])     one scale per block
//   q8 = round(H [q] / q_scale[row])               one scale per row
//   v8 = round([v / channel] / v_scale[block])     one scale per block, one factor per channel
// H, a Walsh-Hadamard matrix, is orthogonal up to a factor: q . k stays, while a channel that towers above the rest is
// spread over all of them. Without it a channel of q and k forty times the rest costs several percent.
//
// What every head of a call shares.
struct PackShape {
    TokenLayout layout;
    BlockLayout kv;
    std::int32_t head_dim = 64;
    DType dtype = DType::f32;
    Precision precision = Precision::fp32;
    bool tail = false;
    const KernelTable* kernels = nullptr;

    std::int64_t panels() const { return tail ? (kv.grid_blocks + kPooledPanel - 1) / kPooledPanel : 0; }
};

// Packed keys and values of one (batch, head), all in panels. Unused members are null.
struct PackedHead {
    // fp32
    float* k = nullptr;  // [blocks][head_dim][block_kv]
    float* v = nullptr;  // [blocks][block_kv][head_dim]
    // int8; group as in KernelTable
    std::byte* k8 = nullptr;         // [blocks][head_dim / group][block_kv][group]
    std::byte* v8 = nullptr;         // [blocks][block_kv / group][head_dim][group]
    std::int32_t* k_init = nullptr;  // [blocks][block_kv]
    float* k_scale = nullptr;        // [blocks]
    float* v_scale = nullptr;        // [blocks]
    float* shift = nullptr;          // [head_dim] subtracted from every key
    float* channel = nullptr;        // [head_dim] v's factor per channel
    float* channel_inverse = nullptr;
    // tail; the panels' last columns past the grid's blocks are zero
    float* pooled_k = nullptr;  // [panels][head_dim][kPooledPanel] mean key of each grid block, shifted as k is
    float* pooled_v = nullptr;  // [panels][kPooledPanel][head_dim] mean value, divided by the factor per channel
};

// Takes a head's arrays from the carver.
PackedHead place_head(const PackShape& shape, Carver& carver);

// One (batch, head) of a tensor: where its token 0 starts, and the distance between tokens in bytes.
struct HeadRows {
    const std::byte* data = nullptr;
    std::int64_t stride = 0;
    const std::byte* row(std::int64_t token) const { return data + token * stride; }
};

// int8: key shift and value factors of a head. Any vectors are exact up to rounding. The shift is the mean of a sample
// of the keys. The factor per channel is the cubic mean of |v|: against the maximum (which lets one token flatten its
// channel everywhere) and the mean (which hides a token that towers in all channels) it had the least worst error over
// outlier channels, tokens and single values.
void pack_statistics(const PackShape& shape, const HeadRows& k, const HeadRows& v, const PackedHead& head);

// Packs one block of keys and values. tokens: original token of each of its `count` places.
// scratch: 3 * block_kv * head_dim floats.
void pack_block(const PackShape& shape, const HeadRows& k, const HeadRows& v, std::int64_t block,
                const std::int32_t* tokens, std::int32_t count, const PackedHead& head, float* scratch);

// A packed query tile; rows past `count` up to an even number are zero.
struct PackedQueries {
    float* q = nullptr;        // [block_q][head_dim], times `scale`
    std::byte* q8 = nullptr;   // int8
    float* q_scale = nullptr;  // int8, times `scale`
};
void pack_queries(const PackShape& shape, const HeadRows& q, const std::int32_t* tokens, std::int32_t count,
                  float scale, const PackedQueries& packed);

}  // namespace paro::cpu
