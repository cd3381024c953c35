// What sampled queries say: offset-kernel sums, and what a plan keeps of their attention. As in launch.h, all work goes
// to `stream` of the current device and nothing waits.
#pragma once

#include "paro/cuda/params.h"

namespace paro::cuda {

// Sampled queries of every head of a call. Of `base` q, k (and v), batch, heads, head_dim, dtype (f16 or bf16),
// sm_scale and what set_sizes fills are used; the meter takes its plan and tail from there too.
struct SampleParams {
    AttentionParams base;
    std::int32_t sides[3];       // of the grid: F, H, W
    std::int32_t queries;        // of a head; number i is looked at in batch entry i * batch / queries
    const std::int32_t* places;  // [heads][queries] grid places in original order; what is none is left out
    std::int32_t row_tiles;      // tiles of 64 queries of a slot
    std::int32_t splits;         // how many CTAs share the keys of a tile

    PARO_HD std::int32_t items() const { return base.slots() * row_tiles; }
};

struct ObserveParams {
    SampleParams sample;
    const std::int32_t* tables;  // bin of offset o of axis F at [o + F - 1], then the same of H and W
    std::int32_t bins[3];        // of an axis
    std::uint64_t* sums;         // [heads][bins] added to: probabilities in units of 2^-32
    std::uint64_t* pairs;        // [heads][bins] added to: (query, key) pairs
    std::int64_t* rows;          // [heads][2] added to: rows counted; rows left out, since they were not finite
    const std::int32_t* kept;    // [heads] place of a head's rows in kept_rows, -1 for none; null: no rows are kept
    void* kept_rows;             // fp16 [..][queries][grid tokens]; rows that are not finite become zeros
    float2* partial;             // scratch [items][splits][64] maximum and sum

    PARO_HD std::int32_t all_bins() const { return bins[0] * bins[1] * bins[2]; }
};

struct MeterParams {
    SampleParams sample;
    std::int32_t outputs;  // 0: retained mass alone, without v; the error is NaN then
    float* partial;        // scratch [items][splits][64][8 + 2 head_dim]
    float4* rows;          // scratch [heads][queries] mass inside, mass, squared error, squared norm
    float2* out;           // [heads] retained share of the grid's mass, squared error over squared norm
};

// Fills sides, row_tiles and splits; set_sizes has filled base, places and queries are set. Throws Error naming the
// argument.
void set_samples(SampleParams& p, const Sizes& sizes);

// Two launches. Sums are of integers: the same bits whatever the order.
std::size_t observe_bytes(const ObserveParams& p);
void place_observe(ObserveParams& p, void* base);
void launch_observe(const ObserveParams& p, Stream stream);

// Three launches. set_meter, after set_samples, shares keys out by blocks and not by tiles.
void set_meter(MeterParams& p);
std::size_t meter_bytes(const MeterParams& p);
void place_meter(MeterParams& p, void* base);
void launch_meter(const MeterParams& p, Stream stream);

}  // namespace paro::cuda
