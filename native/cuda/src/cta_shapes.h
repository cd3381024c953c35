// What a launch and its kernel agree on: threads of a CTA, what it takes, bytes of its shared memory. Plain C++: host
// code needs no CUDA compiler.
#pragma once

#include <cstddef>
#include <cstdint>

#include "paro/cuda/packed_layout.h"

namespace paro::cuda {

// Bytes that parameters of these types take as a kernel's.
template <class... P>
constexpr int parameter_bytes() {
    std::size_t end = 0;
    ((end = (end + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
    return static_cast<int>(end);
}

// Packing.
constexpr int kPackThreads = 256;
constexpr int kRowPart = 32;  // elements of a row that a thread holds
// Rows of queries that a CTA packs.
PARO_HD constexpr int packed_rows(int head_dim) { return kPackThreads / (head_dim / kRowPart); }
// Threads of a CTA that packs a block of keys and values.
PARO_HD constexpr int pack_key_threads(int head_dim, int block) { return block * (head_dim / kRowPart); }

// Attention with mma.sync: a warp owns 32 query rows, a step takes 64 keys. Narrow: 16 rows.
constexpr int kWarpRows = 32, kStepKeys = 64;
PARO_HD constexpr int portable_threads(int block_q) { return block_q / kWarpRows * 32; }
constexpr int kNarrowThreads = 128;
// INT8: the queries, `stages` of keys and values, what goes with them, a mask row.
constexpr int kInt8MostStages = 4, kInt8StepBytes = 20 * kInt8MostStages;
PARO_HD constexpr int int8_stage_bytes(int head_dim) { return 2 * kStepKeys * head_dim; }
PARO_HD constexpr int int8_shared_bytes(int head_dim, int block_q, int stages, int mask_words) {
    return block_q * head_dim + stages * int8_stage_bytes(head_dim) + kInt8StepBytes + 4 * mask_words;
}
// Without quantisation: the same, in 16 bits and with two stages.
constexpr int kHalfStages = 2, kHalfStepBytes = 12 * kHalfStages;
PARO_HD constexpr int half_shared_bytes(int head_dim, int block_q, int mask_words) {
    return 2 * (block_q * head_dim + kHalfStages * 2 * kStepKeys * head_dim) + kHalfStepBytes + 4 * mask_words;
}

// Attention on sm_90a: CTAs of one warpgroup that loads, and others that compute 64 query rows each.
constexpr int kWarpgroupRows = 64, kWarpgroupThreads = 128;
constexpr int kMaxStages = 8;
constexpr int kQueryStages = 2;      // the next tile's queries, and its keys, come while this one is computed
constexpr int kTileInfoBytes = 432;  // TileInfo in hopper_ring.cuh

// What the kernel is compiled with; native/cuda/bench measures them beside each other.
struct HopperOptions {
    bool trace = false;  // adds up what each role waits for
    int ctas = 1;        // of a multiprocessor
};
// As many CTAs as fit a multiprocessor's registers.
PARO_HD constexpr HopperOptions best_options(int head_dim, int block_q, int block_kv) {
    return {false, block_q == 2 * kWarpgroupRows ? 1 : head_dim == 64 && block_kv == 64 ? 3 : 2};
}

// Shared memory of a CTA and registers of its threads. Tiles start on 1024 bytes, as their swizzle and wgmma's
// descriptors want.
struct HopperPlan {
    int threads;
    int q_bytes;                             // a query tile, [block_q][head_dim]
    int k_bytes;                             // a key tile, [block_kv][head_dim]; of values [head_dim][block_kv]
    int stage_bytes;                         // keys, then values
    int stages;                              // as many as fit beside the rest
    int output_bytes;                        // a warp's rows of o on their way out
    int queries, ring, output, info, bytes;  // where each part begins, and the end
    int producer, consumer;                  // registers of a thread after the start
};
PARO_HD constexpr HopperPlan hopper_plan(int head_dim, int block_q, int block_kv, int ctas) {
    const int groups = block_q / kWarpgroupRows, warps = groups * kWarpgroupThreads / 32;
    HopperPlan p{};
    p.threads = (groups + 1) * kWarpgroupThreads;
    p.q_bytes = block_q * head_dim;
    p.k_bytes = block_kv * head_dim;
    p.stage_bytes = 2 * p.k_bytes;
    p.output_bytes = 16 * (2 * head_dim + 16);
    const int fixed = kQueryStages * p.q_bytes + warps * p.output_bytes + kTileInfoBytes;
    const int room = ((227 << 10) / ctas - 1024 - fixed) / p.stage_bytes;
    p.stages = room < kMaxStages ? room : kMaxStages;
    p.ring = kQueryStages * p.q_bytes;
    p.output = p.ring + p.stages * p.stage_bytes;
    p.info = p.output + warps * p.output_bytes;
    p.bytes = p.info + kTileInfoBytes;
    // What the compiler gives each thread at the start; afterwards the producer's few go to the consumers.
    const int at_start = (64 << 10) / (ctas * p.threads) / 8 * 8;
    p.producer = head_dim == 64 ? 32 : 24;
    const int left = (at_start * (groups + 1) - p.producer) / groups / 8 * 8;
    p.consumer = left < 240 ? left : 240;
    return p;
}

// Looking at attention: tiles of 64 keys, CTAs of 128 threads, 64 sampled queries each.
constexpr int kScoreKeys = 64, kScoreThreads = 128, kSampleRows = 64;
constexpr int kObserveStages = 3;
PARO_HD constexpr int observe_ring_bytes(int head_dim) { return kObserveStages * kScoreKeys * head_dim * 2; }

// The meter. 64-key blocks overlap the next copy with this block's work; a 128-key block fills the ring alone, and the
// other CTA of the SM works meanwhile.
constexpr int kMeterStats =
    8;  // floats beside a row's two outputs: maximum, sums (all, sparse), grid mass, mass inside
PARO_HD constexpr int meter_stages(int block_kv) { return block_kv == 64 ? 2 : 1; }
PARO_HD constexpr int meter_shared_bytes(int head_dim, int block_kv) {
    return (kSampleRows + meter_stages(block_kv) * 2 * block_kv) * head_dim * 2;
}

// Masks found on the fly. Scores of two rows a warp fill the shared memory of long sequences, so a CTA that selects had
// better be wide.
constexpr int kPoolThreads = 128, kSelectThreads = 256, kSelectRows = 16;
PARO_HD constexpr int select_stride(int key_blocks) { return key_blocks + 4; }
PARO_HD constexpr bool select_two_buffers(int batch) { return batch > 1; }

// Exact importance: 128 query rows a CTA at a time, by blocks of 64.
constexpr int kImportanceRows = 128, kImportanceBlock = 64, kImportanceHalves = kImportanceRows / kImportanceBlock;
static_assert(kImportanceBlock == kScoreKeys);
constexpr int kImportanceResident = 3, kImportanceHopperResident = 2;  // CTAs of an SM
constexpr int kImportanceStages = 3, kImportanceHopperStages = 4, kImportanceHopperThreads = 256;
PARO_HD constexpr int importance_ring_bytes(int head_dim, int stages) { return stages * kScoreKeys * head_dim * 2; }

}  // namespace paro::cuda
