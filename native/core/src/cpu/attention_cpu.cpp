// Validation and driver of the CPU attention: heads in groups, each packed once, then query tiles by the plan's
// schedule.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "cpu/attention_pack.h"
#include "paro/error.h"
#include "paro/limits.h"
#include "paro/thread_pool.h"

namespace paro {
namespace {

using cpu::AlignedBuffer;
using cpu::Carver;
using cpu::HeadRows;
using cpu::PackedHead;
using cpu::PackShape;

// Packed keys and values of the heads in flight stay below this where one head alone does.
constexpr std::int64_t kGroupBytes = std::int64_t{16} << 20;
// A group holds at least this many query tiles a thread, so that few threads wait at its end.
constexpr std::int64_t kTilesPerThread = 8;

std::int64_t element_size(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

void check_strides(const AttentionParams& p, const char* name, const void* data, std::int64_t stride_b,
                   std::int64_t stride_h, std::int64_t stride_n) {
    const std::string text = name;
    require(data != nullptr, text + ".data", "must not be null", "null");
    require(reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(element_size(p.dtype)) == 0,
            text + ".data", "must be a multiple of an element's " + std::to_string(element_size(p.dtype)) + " bytes",
            data);
    const auto check = [&](const char* suffix, std::int64_t stride, std::int64_t extent) {
        require(extent == 1 || stride >= p.head_dim, text + suffix,
                "must be at least head_dim, " + std::to_string(p.head_dim), stride);
    };
    check(".stride_b", stride_b, p.batch);
    check(".stride_h", stride_h, p.heads);
    check(".stride_n", stride_n, p.plan->layout.length());
}

void check_block(const char* name, std::int32_t block) {
    require(block >= 16 && block <= 256 && block % cpu::kAlign == 0, name, "must be a multiple of 16 from 16 to 256",
            block);
}

void check_plan(const Plan& plan, std::int32_t heads, bool tail) {
    check_block("plan.block_q", plan.block_q);
    check_block("plan.block_kv", plan.block_kv);
    validate(plan.layout);
    require(plan.heads.size() == static_cast<std::size_t>(heads), "heads",
            "must be the plan's, " + std::to_string(plan.heads.size()), heads);
    const BlockLayout q = plan.q_blocks(), kv = plan.kv_blocks();
    for (std::size_t h = 0; h < plan.heads.size(); ++h) {
        const BlockMask& mask = plan.heads[h].mask;
        const std::string name = "plan.heads[" + std::to_string(h) + "].mask";
        require(mask.rows() == q.grid_blocks, name, "must have " + std::to_string(q.grid_blocks) + " rows",
                mask.rows());
        require(mask.cols() == kv.grid_blocks, name, "must have " + std::to_string(kv.grid_blocks) + " columns",
                mask.cols());
    }
    // A query that sees no key has no answer. Masks from plan_head never leave a row empty; others might.
    for (std::size_t h = 0; h < plan.heads.size() && !tail && plan.layout.prefix + plan.layout.suffix == 0; ++h) {
        for (std::int64_t row = 0; row < q.grid_blocks; ++row) {
            require(plan.heads[h].mask.row_count(row) > 0, "plan.heads[" + std::to_string(h) + "].mask",
                    "must keep a block in every row where there is neither tail, prefix nor suffix",
                    "none in row " + std::to_string(row));
        }
    }
    // Every tile once: one left out would leave the output unwritten, one too many would be a race.
    std::vector<bool> seen(static_cast<std::size_t>(heads * q.blocks()));
    require(plan.schedule.size() == seen.size(), "plan.schedule", "must hold " + std::to_string(seen.size()) + " tiles",
            plan.schedule.size());
    for (const Tile& tile : plan.schedule) {
        require(tile.head >= 0 && tile.head < heads && tile.index >= 0 && tile.index < q.blocks(), "plan.schedule",
                "must hold tiles of the plan",
                "head " + std::to_string(tile.head) + ", tile " + std::to_string(tile.index));
        const auto at = static_cast<std::size_t>(tile.head * q.blocks() + tile.index);
        require(!seen[at], "plan.schedule", "must hold every tile once",
                "head " + std::to_string(tile.head) + ", tile " + std::to_string(tile.index) + " twice");
        seen[at] = true;
    }
}

void check(const AttentionParams& p) {
    require_head_dim(p.head_dim);
    require(p.batch >= 1, "batch", "must be at least 1", p.batch);
    require(p.heads >= 1, "heads", "must be at least 1", p.heads);
    require(p.dtype <= DType::bf16, "dtype", "must be f32, f16 or bf16", static_cast<int>(p.dtype));
    require(p.precision <= Precision::int8, "precision", "must be fp32 or int8", static_cast<int>(p.precision));
    require(!std::isnan(p.sm_scale) && !std::isinf(p.sm_scale), "sm_scale", "must be finite", p.sm_scale);
    require(p.plan != nullptr, "plan", "must not be null", "null");
    check_plan(*p.plan, p.heads, p.tail);
    check_strides(p, "q", p.q.data, p.q.stride_b, p.q.stride_h, p.q.stride_n);
    check_strides(p, "k", p.k.data, p.k.stride_b, p.k.stride_h, p.k.stride_n);
    check_strides(p, "v", p.v.data, p.v.stride_b, p.v.stride_h, p.v.stride_n);
    check_strides(p, "o", p.o.data, p.o.stride_b, p.o.stride_h, p.o.stride_n);
}

// What one worker needs for packing a block or computing a tile.
struct Scratch {
    float* rows;           // pack_block's
    cpu::PackedQueries q;  // the query tile
    cpu::SoftmaxState state;
    float* s;              // [kStripRows][max(block_kv, kPooledPanel, head_dim)], s32 too
    std::byte* p;          // the same places, as the kernels want it
    float* bias;           // [panels][kPooledPanel]
    std::int32_t* blocks;  // [kv blocks]
    std::int32_t* panels;  // [panels]
};

Scratch place_scratch(const PackShape& shape, std::int32_t block_q, Carver& carver) {
    const std::int64_t dim = shape.head_dim,
                       strip = cpu::kStripRows * std::max<std::int64_t>({shape.kv.block, cpu::kPooledPanel, dim});
    Scratch s;
    s.rows = carver.take<float>(3 * shape.kv.block * dim);
    s.q.q = carver.take<float>(block_q * dim);
    s.q.q8 = carver.take<std::byte>(4 * block_q * dim);
    s.q.q_scale = carver.take<float>(cpu::strip_lanes(block_q));
    s.state.m = carver.take<float>(cpu::strip_lanes(block_q));
    s.state.l = carver.take<float>(cpu::strip_lanes(block_q));
    s.state.o = carver.take<float>(block_q * dim);
    s.s = carver.take<float>(strip);
    s.p = carver.take<std::byte>(4 * strip);
    s.bias = carver.take<float>(shape.panels() * cpu::kPooledPanel);
    s.blocks = carver.take<std::int32_t>(shape.kv.blocks());
    s.panels = carver.take<std::int32_t>(shape.panels());
    return s;
}

// One call.
class Attention {
   public:
    explicit Attention(const AttentionParams& params);
    void run();

   private:
    struct Slot {
        std::int32_t batch, head;
    };
    struct Item {
        std::int32_t slot, tile;
    };

    HeadRows rows(const TensorView& view, const Slot& slot) const {
        const auto* base = static_cast<const std::byte*>(view.data);
        return {base + (slot.batch * view.stride_b + slot.head * view.stride_h) * element_, view.stride_n * element_};
    }
    const std::int32_t* q_index(const Slot& slot) const { return index(q_index_, slot); }
    const std::int32_t* kv_index(const Slot& slot) const { return index(kv_index_, slot); }
    using Indices = std::array<std::vector<std::int32_t>, kAxisOrders.size()>;
    const std::int32_t* index(const Indices& indices, const Slot& slot) const {
        return indices[static_cast<std::size_t>(p_.plan->heads[slot.head].order)].data();
    }

    void run_group(std::int64_t first, std::int64_t count);
    void compute_tile(const Slot& slot, const PackedHead& head, std::int32_t tile, const Scratch& scratch) const;
    std::int64_t list_blocks(const Slot& slot, std::int32_t tile, std::int32_t* blocks) const;
    std::int64_t list_panels(const Slot& slot, std::int32_t tile, const Scratch& scratch) const;
    void attend(const PackedHead& head, const Scratch& scratch, std::int32_t rows, std::int64_t count) const;
    void attend_tail(const PackedHead& head, const Scratch& scratch, std::int32_t rows, std::int64_t count) const;
    void write_output(const Slot& slot, const PackedHead& head, std::int32_t tile, const Scratch& scratch) const;

    const AttentionParams& p_;
    const Plan& plan_;
    PackShape shape_;
    BlockLayout q_;
    std::int64_t element_;
    int threads_;
    float scale_;  // sm_scale * log2(e)
    Indices q_index_, kv_index_;
    std::vector<std::int32_t> q_tokens_, kv_tokens_, panel_tokens_;
    AlignedBuffer packed_, scratch_memory_;
    std::vector<PackedHead> heads_;
    std::vector<Scratch> scratch_;
    std::vector<Slot> slots_;
    std::int64_t group_ = 1;
};

Attention::Attention(const AttentionParams& params)
    : p_(params),
      plan_(*params.plan),
      q_(plan_.q_blocks()),
      element_(element_size(params.dtype)),
      threads_(resolve_threads(params.threads)) {
    const float sm_scale = p_.sm_scale > 0.0f ? p_.sm_scale : 1.0f / std::sqrt(static_cast<float>(p_.head_dim));
    scale_ = sm_scale * std::numbers::log2e_v<float>;
    shape_ = {plan_.layout, plan_.kv_blocks(), p_.head_dim, p_.dtype, p_.precision, p_.tail, &cpu::active_kernels()};

    for (const HeadPlan& head : plan_.heads) {
        const auto order = static_cast<std::size_t>(head.order);
        if (!q_index_[order].empty()) continue;
        q_index_[order] = pack_index(plan_.layout, head.order, plan_.block_q);
        kv_index_[order] =
            plan_.block_q == plan_.block_kv ? q_index_[order] : pack_index(plan_.layout, head.order, plan_.block_kv);
    }
    const auto count_tokens = [&](const BlockLayout& blocks) {
        std::vector<std::int32_t> tokens;
        for (std::int64_t b = 0; b < blocks.blocks(); ++b) tokens.push_back(tokens_in_block(plan_.layout, blocks, b));
        return tokens;
    };
    q_tokens_ = count_tokens(q_);
    kv_tokens_ = count_tokens(shape_.kv);
    for (std::int64_t left = shape_.kv.grid_blocks; left > 0 && p_.tail; left -= cpu::kPooledPanel) {
        panel_tokens_.push_back(static_cast<std::int32_t>(std::min<std::int64_t>(left, cpu::kPooledPanel)));
    }

    // Heads outside, batch inside: the same mask and order serve neighbouring slots.
    for (std::int32_t h = 0; h < p_.heads; ++h) {
        for (std::int32_t b = 0; b < p_.batch; ++b) slots_.push_back({b, h});
    }
    Carver size(nullptr);
    cpu::place_head(shape_, size);
    const auto head_bytes = static_cast<std::int64_t>(size.used());
    const std::int64_t enough = (threads_ * kTilesPerThread + q_.blocks() - 1) / q_.blocks();
    group_ = std::clamp(std::max(kGroupBytes / head_bytes, enough), std::int64_t{1},
                        static_cast<std::int64_t>(slots_.size()));
    packed_ = AlignedBuffer(static_cast<std::size_t>(head_bytes * group_));
    Carver carver(packed_.data());
    for (std::int64_t i = 0; i < group_; ++i) heads_.push_back(cpu::place_head(shape_, carver));

    Carver scratch_size(nullptr);
    place_scratch(shape_, plan_.block_q, scratch_size);
    scratch_memory_ = AlignedBuffer(scratch_size.used() * static_cast<std::size_t>(threads_));
    Carver scratch_carver(scratch_memory_.data());
    for (int i = 0; i < threads_; ++i) scratch_.push_back(place_scratch(shape_, plan_.block_q, scratch_carver));
}

void Attention::run() {
    const auto slots = static_cast<std::int64_t>(slots_.size());
    for (std::int64_t first = 0; first < slots; first += group_) run_group(first, std::min(group_, slots - first));
}

void Attention::run_group(std::int64_t first, std::int64_t count) {
    if (p_.precision == Precision::int8) {
        parallel_for(count, threads_, [&](std::int64_t i, int) {
            const Slot& slot = slots_[first + i];
            cpu::pack_statistics(shape_, rows(p_.k, slot), rows(p_.v, slot), heads_[i]);
        });
    }
    const std::int64_t blocks = shape_.kv.blocks();
    parallel_for(count * blocks, threads_, [&](std::int64_t i, int worker) {
        const std::int64_t local = i / blocks, block = i % blocks;
        const Slot& slot = slots_[first + local];
        cpu::pack_block(shape_, rows(p_.k, slot), rows(p_.v, slot), block, kv_index(slot) + block * plan_.block_kv,
                        kv_tokens_[block], heads_[local], scratch_[worker].rows);
    });

    std::vector<Item> items;
    items.reserve(static_cast<std::size_t>(count * q_.blocks()));
    for (const Tile& tile : plan_.schedule) {
        for (std::int32_t b = 0; b < p_.batch; ++b) {
            const std::int64_t slot = std::int64_t{tile.head} * p_.batch + b;
            if (slot >= first && slot < first + count) items.push_back({static_cast<std::int32_t>(slot), tile.index});
        }
    }
    parallel_for(static_cast<std::int64_t>(items.size()), threads_, [&](std::int64_t i, int worker) {
        const Item& item = items[i];
        compute_tile(slots_[item.slot], heads_[item.slot - first], item.tile, scratch_[worker]);
    });
}

void Attention::compute_tile(const Slot& slot, const PackedHead& head, std::int32_t tile, const Scratch& s) const {
    const std::int32_t padded = (q_tokens_[tile] + 1) / 2 * 2;
    cpu::pack_queries(shape_, rows(p_.q, slot), q_index(slot) + std::int64_t{tile} * plan_.block_q, q_tokens_[tile],
                      scale_, s.q);
    std::fill_n(s.state.m, cpu::strip_lanes(padded), -std::numeric_limits<float>::infinity());
    std::fill_n(s.state.l, cpu::strip_lanes(padded), 0.0f);
    std::fill_n(s.state.o, std::int64_t{padded} * p_.head_dim, 0.0f);
    attend(head, s, padded, list_blocks(slot, tile, s.blocks));
    if (p_.tail && q_.is_grid_block(tile)) attend_tail(head, s, padded, list_panels(slot, tile, s));
    write_output(slot, head, tile, s);
}

// Prefix and suffix blocks always; of the grid, what the mask row holds, or all for queries outside the grid.
std::int64_t Attention::list_blocks(const Slot& slot, std::int32_t tile, std::int32_t* blocks) const {
    const BlockLayout& kv = shape_.kv;
    const auto first_grid = static_cast<std::int32_t>(kv.first_grid_block());
    const auto first_suffix = static_cast<std::int32_t>(first_grid + kv.grid_blocks);
    std::int32_t* end = blocks;
    for (std::int32_t b = 0; b < first_grid; ++b) *end++ = b;
    if (q_.is_grid_block(tile)) {
        const BlockMask& mask = plan_.heads[slot.head].mask;
        const std::uint32_t* words = mask.row(tile - q_.first_grid_block());
        for (std::int64_t w = 0; w < mask.words_per_row(); ++w) {
            for (std::uint32_t bits = words[w]; bits != 0; bits &= bits - 1) {
                *end++ = first_grid + static_cast<std::int32_t>(w * 32 + std::countr_zero(bits));
            }
        }
    } else {
        for (std::int32_t b = first_grid; b < first_suffix; ++b) *end++ = b;
    }
    for (std::int32_t b = first_suffix; b < static_cast<std::int32_t>(kv.blocks()); ++b) *end++ = b;
    return end - blocks;
}

// Panels that hold a skipped block. A pooled key stands for n keys: log2(n) on its score; -inf where computed.
std::int64_t Attention::list_panels(const Slot& slot, std::int32_t tile, const Scratch& scratch) const {
    const BlockMask& mask = plan_.heads[slot.head].mask;
    const std::int64_t row = tile - q_.first_grid_block();
    std::int64_t count = 0;
    for (std::int64_t panel = 0; panel < shape_.panels(); ++panel) {
        bool any = false;
        for (std::int64_t c = 0; c < panel_tokens_[panel]; ++c) {
            const std::int64_t block = panel * cpu::kPooledPanel + c;
            const bool skipped = !mask.get(row, block);
            const auto tokens = static_cast<float>(kv_tokens_[shape_.kv.first_grid_block() + block]);
            scratch.bias[block] = skipped ? std::log2(tokens) : -std::numeric_limits<float>::infinity();
            any = any || skipped;
        }
        if (any) scratch.panels[count++] = static_cast<std::int32_t>(panel);
    }
    return count;
}

void Attention::attend(const PackedHead& head, const Scratch& s, std::int32_t rows, std::int64_t count) const {
    if (p_.precision == Precision::fp32) {
        shape_.kernels->attend_fp32({s.q.q, head.k, head.v, nullptr, s.blocks, kv_tokens_.data(), count, rows,
                                     p_.head_dim, plan_.block_kv, s.s, s.state});
    } else {
        shape_.kernels->attend_int8({s.q.q8, s.q.q_scale, head.k8, head.k_init, head.k_scale, head.v8, head.v_scale,
                                     s.blocks, kv_tokens_.data(), count, rows, p_.head_dim, plan_.block_kv,
                                     reinterpret_cast<std::int32_t*>(s.s), s.p, s.state});
    }
}

// The tail stays in fp32 under int8 too: a few pooled keys weigh little in time, and each stands for a whole block.
void Attention::attend_tail(const PackedHead& head, const Scratch& s, std::int32_t rows, std::int64_t count) const {
    shape_.kernels->attend_fp32({s.q.q, head.pooled_k, head.pooled_v, s.bias, s.panels, panel_tokens_.data(), count,
                                 rows, p_.head_dim, cpu::kPooledPanel, s.s, s.state});
}

void Attention::write_output(const Slot& slot, const PackedHead& head, std::int32_t tile, const Scratch& s) const {
    auto* base =
        static_cast<std::byte*>(p_.o.data) + (slot.batch * p_.o.stride_b + slot.head * p_.o.stride_h) * element_;
    const std::int32_t* tokens = q_index(slot) + std::int64_t{tile} * plan_.block_q;
    for (std::int32_t r = 0; r < q_tokens_[tile]; ++r) {
        shape_.kernels->store_row(s.state.o + std::int64_t{r} * p_.head_dim, 1.0f / s.state.l[cpu::strip_lane(r)],
                                  head.channel, base + tokens[r] * p_.o.stride_n * element_, p_.dtype, p_.head_dim);
    }
}

}  // namespace

void attention_cpu(const AttentionParams& params) {
    check(params);
    Attention(params).run();
}

}  // namespace paro
