// A plan: profile + token layout + tile, ready to launch. One per layer, timestep group and density.
#pragma once

#include <cstdint>
#include <vector>

#include "paro/block_mask.h"
#include "paro/importance.h"
#include "paro/token_layout.h"

namespace paro {

struct HeadPlan {
    AxisOrder order = AxisOrder::FHW;
    BlockMask mask;         // grid query tiles x grid key blocks
    double density = 1.0;   // asked for; mask.density() is what runs
    double retained = 1.0;  // estimated retained mass of the mask
};

// One unit of work: a query tile of a head. index counts packed query tiles (prefix, grid, suffix).
struct Tile {
    std::int32_t head = 0;
    std::int32_t index = 0;
    friend bool operator==(const Tile&, const Tile&) = default;
};

struct Plan {
    TokenLayout layout;
    std::int32_t block_q = 64, block_kv = 64;
    std::vector<HeadPlan> heads;
    std::vector<Tile> schedule;  // longest first: static, since masks are

    double density = 0.0;        // computed grid blocks / all grid blocks, over all heads
    double density_total = 0.0;  // the same with prefix and suffix counted, which are always computed
    double retained = 0.0;       // mean over heads of the estimated retained mass

    BlockLayout q_blocks() const { return block_layout(layout, block_q); }
    BlockLayout kv_blocks() const { return block_layout(layout, block_kv); }
};

// Checks masks against layout and tiles, then fills what follows from them. Throws Error naming the head.
Plan make_plan(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv, std::vector<HeadPlan> heads);

// A head's plan from its importance in the chosen order.
HeadPlan plan_head(const BlockMap& map, double density);
// Every block in, original order.
HeadPlan dense_head(const TokenLayout& layout, std::int32_t block_q, std::int32_t block_kv);

}  // namespace paro
