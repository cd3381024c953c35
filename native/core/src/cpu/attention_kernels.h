// What an instruction set provides to the CPU attention: plain structs and function pointers. The units that fill a
// KernelTable are compiled with their own flags, so nothing here may be an inline function with linkage of its own:
// the linker could keep the AVX-512 copy of it for everybody.
#pragma once

#include <cstdint>

#include "paro/attention.h"

namespace paro::cpu {

// Rows of a packed query tile come in twos: the kernels handle strips of 6, 4 or 2 rows.
constexpr std::int32_t kStripRows = 6;
// What a strip keeps per row has a whole vector of any width: row r stands at strip_lane(r), lanes past a strip's rows
// hold nothing. Sums and maxima over rows are formed eight at a time.
constexpr std::int32_t kStripLanes = 16;
constexpr std::int32_t kRowLanes = 8;
// head_dim, block_kv and block_q are multiples of this.
constexpr std::int32_t kAlign = 16;

// "In panels": the columns of a matrix are cut into panels of KernelTable::panel, the last one narrower where they do
// not come out even. Panels follow one another, each with its rows densely packed, so that a kernel reads without gaps.

// The online softmax of a query tile. Scores count in powers of two: log2(e) is folded into the scale of q.
struct SoftmaxState {
    float* m;  // [strips][kStripLanes] running maximum, starts at -inf
    float* l;  // [strips][kStripLanes] normaliser, starts at 0
    float* o;  // [rows][head_dim] unnormalised output, starts at 0
};

struct Fp32Tile {
    const float* q;              // [rows][head_dim], times sm_scale * log2(e)
    const float* k;              // [blocks][head_dim][block_kv], in panels
    const float* v;              // [blocks][block_kv][head_dim], in panels
    const float* bias;           // [blocks][block_kv] added to the scores, or null
    const std::int32_t* blocks;  // [count] blocks to compute, by index
    const std::int32_t* tokens;  // [blocks] keys in each block, by index
    std::int64_t count;
    std::int32_t rows, head_dim, block_kv;
    float* s;  // [kStripRows][block_kv] scratch
    SoftmaxState state;
};

struct Int8Tile {
    // q and k are rotated (rotate_row), which multiplies q . k by head_dim.
    const void* q;               // [rows][head_dim] u8 (q + 128), s16 or float, as the table's `group` says
    const float* q_scale;        // [rows], times sm_scale * log2(e)
    const void* k;               // [blocks][head_dim / group][block_kv][group] s8, s16 or float, in panels
    const std::int32_t* k_init;  // [blocks][block_kv] what the s32 scores start from: -128 * sum(k) for u8 q, else 0
    const float* k_scale;        // [blocks]
    const void* v;               // [blocks][block_kv / group][head_dim][group] s8, s16 or float, in panels
    const float* v_scale;        // [blocks]; the factor per channel is applied by store_row
    const std::int32_t* blocks;  // [count]
    const std::int32_t* tokens;  // [blocks]
    std::int64_t count;
    std::int32_t rows, head_dim, block_kv;
    std::int32_t* s;  // [kStripRows][max(block_kv, head_dim)] scratch
    void* p;          // [kStripRows][block_kv] u8, s16 or float scratch
    SoftmaxState state;
};

struct KernelTable {
    void (*attend_fp32)(const Fp32Tile& tile);
    void (*attend_int8)(const Int8Tile& tile);
    // How int8 is packed into words of 4 bytes. 4: bytes, dotted four at a time (VNNI). 2: 16-bit integers, two at a
    // time. 1: floats that hold integers.
    std::int32_t group;
    // Columns of a panel, a multiple of kAlign.
    std::int32_t panel;

    // Rows of n elements, n a multiple of kAlign.
    void (*load_row)(const void* src, DType dtype, float* dst, std::int32_t n);
    // dst = x * inverse * channel (channel may be null)
    void (*store_row)(const float* x, float inverse, const float* channel, void* dst, DType dtype, std::int32_t n);
    // x = (x - shift) * factor, either may be null. Returns max |x|, NaN if any x is not finite.
    float (*prepare_row)(float* x, const float* shift, const float* factor, std::int32_t n);
    // x = H x, H the Walsh-Hadamard matrix of order n (64 or 128), entries +-1.
    void (*rotate_row)(float* x, std::int32_t n);
    // round(x * inverse), ties to even, clamped to +-127, plus offset: stored as `group` says.
    void (*quantise_row)(const float* x, float inverse, std::int32_t offset, void* dst, std::int32_t n);
};

// Null where the unit was built for another processor.
const KernelTable* scalar_kernels();
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();
const KernelTable* avx512_vnni_kernels();

// The table of active_isa().
const KernelTable& active_kernels();

}  // namespace paro::cpu
