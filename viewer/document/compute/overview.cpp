#include "document/compute/overview.h"

#include <algorithm>
#include <cmath>

#include "paro/paint.h"

namespace paro::viewer {

namespace {

// A map as kThumb x kThumb cells: mean value, and the stop at which the cell's blocks are computed, on average.
void make_thumb(const BlockMap& map, const BlockRanking& ranking, HeadSummary& out) {
    const auto cell = [](std::int64_t blocks, int i) {
        const std::int64_t begin = blocks * i / kThumb;
        return std::pair{begin, std::max(begin + 1, blocks * (i + 1) / kThumb)};
    };
    std::vector<float> mean(kThumb * kThumb);
    out.entry.assign(mean.size(), 0);
    const double all = static_cast<double>(ranking.blocks());
    for (int y = 0; y < kThumb; ++y) {
        const auto [row, row_end] = cell(map.rows, y);
        for (int x = 0; x < kThumb; ++x) {
            const auto [col, col_end] = cell(map.cols, x);
            double sum = 0.0, entry = 0.0;
            for (std::int64_t r = row; r < row_end; ++r) {
                for (std::int64_t i = r * map.cols + col; i < r * map.cols + col_end; ++i) {
                    sum += map.value[i];
                    entry += ranking.entry[i];
                }
            }
            const std::size_t at = static_cast<std::size_t>(y) * kThumb + x;
            const double blocks = static_cast<double>((row_end - row) * (col_end - col));
            mean[at] = static_cast<float>(sum / blocks);
            const double stop = std::ceil((entry / blocks + 1.0) / all * kDensitySteps);
            out.entry[at] = static_cast<std::uint8_t>(std::clamp(stop, 0.0, static_cast<double>(kDensitySteps)));
        }
    }
    Scale scale;
    scale.widen(mean);
    out.value.resize(mean.size());
    for (std::size_t i = 0; i < mean.size(); ++i) {
        out.value[i] = static_cast<std::uint8_t>(std::lround(255.0f * scale.place(mean[i])));
    }
}

HeadSummary exact_summary(const Profile& profile, const Capture* capture, const HeadKey& key, AxisOrder order) {
    const auto& head = profile.layers[key.layer].heads[key.head];
    const OffsetKernel kernel = dequantise(profile.bins, head.groups[key.group].kernel);
    const OrderMap found = order_map(kernel, profile, capture, key, order);
    HeadSummary out;
    out.order = order;
    out.exact = true;
    out.blocks = static_cast<double>(found.ranking.blocks());
    for (int step = 1; step <= kDensitySteps; ++step) {
        out.retained[step] = found.curve[static_cast<std::size_t>(step) - 1];
        out.count[step] = static_cast<std::uint32_t>(found.ranking.count(density_of_step(step)));
    }
    make_thumb(found.map, found.ranking, out);
    if (found.rows) {
        out.measured_lost.assign(kDensitySteps + 1, 1.0f);
        for (int step = 1; step <= kDensitySteps; ++step) {
            const auto budget = static_cast<std::uint32_t>(found.ranking.budget(density_of_step(step)));
            out.measured_lost[step] = static_cast<float>(1.0 - found.rows->retained(budget));
        }
    }
    return out;
}

// Masks and maps at a coarse tile: a picture within a millisecond.
void coarse_thumb(const Profile& profile, const HeadKey& key, AxisOrder order, HeadSummary& out) {
    const auto& head = profile.layers[key.layer].heads[key.head];
    const OffsetKernel kernel = dequantise(profile.bins, head.groups[key.group].kernel);
    const auto tile =
        static_cast<std::int32_t>(std::clamp<std::int64_t>((key.grid.size() + kThumb - 1) / kThumb, 1, 4096));
    const BlockMap map = importance(kernel, key.grid, order, std::max(tile, key.tile), std::max(tile, key.tile));
    make_thumb(map, rank_blocks(map), out);
}

}  // namespace

double interpolate_mass(const std::array<double, 4>& mass, double density) {
    double x0 = 0.0, y0 = 0.0;
    for (std::size_t i = 0; i <= mass.size(); ++i) {
        const double x1 = i < mass.size() ? kMassDensities[i] : 1.0, y1 = i < mass.size() ? mass[i] : 1.0;
        if (density <= x1) return y0 + (y1 - y0) * (density - x0) / (x1 - x0);
        x0 = x1;
        y0 = y1;
    }
    return 1.0;
}

namespace {

template <typename Values>
double at_density(const Values& values, double density) {
    const double place = std::clamp(density, 0.0, 1.0) * kDensitySteps;
    const auto step = std::min<std::size_t>(static_cast<std::size_t>(place), kDensitySteps - 1);
    const double share = place - static_cast<double>(step);
    if (share < 1e-6) return values[step];
    return values[step] + (static_cast<double>(values[step + 1]) - values[step]) * share;
}

}  // namespace

double HeadSummary::retained_at(double density) const { return at_density(retained, density); }
double HeadSummary::count_at(double density) const { return at_density(count, density); }
double HeadSummary::lost_on_rows(double density) const {
    return measured_lost.empty() ? -1.0 : at_density(measured_lost, density);
}

void Overview::start(Workers& workers, std::shared_ptr<const Profile> profile, std::shared_ptr<const Capture> capture,
                     const std::vector<HeadState>& heads, std::size_t group, const Grid& grid, std::int32_t tile) {
    ticket_.cancel();
    ticket_ = Ticket();
    profile_ = std::move(profile);
    capture_ = std::move(capture);
    group_ = group;
    grid_ = grid;
    tile_ = tile;
    layer_of_.clear();
    head_of_.clear();
    heads_.assign(heads.size(), {});
    asked_.assign(heads.size(), 0);
    exact_ = thumbs_ = 0;
    ++version_;
    for (std::size_t layer = 0; layer < profile_->layers.size(); ++layer) {
        for (std::size_t head = 0; head < profile_->layers[layer].heads.size(); ++head) {
            layer_of_.push_back(layer);
            head_of_.push_back(head);
        }
    }
    const auto side = static_cast<double>((grid.size() + tile - 1) / tile);
    for (std::size_t i = 0; i < heads_.size(); ++i) {
        HeadSummary& summary = heads_[i];
        summary.order = heads[i].order;
        summary.changed = ++changes_;
        summary.blocks = side * side;
        const auto& mass = profile_->layers[layer_of_[i]].heads[head_of_[i]].groups[group_].mass;
        for (int step = 0; step <= kDensitySteps; ++step) {
            summary.retained[step] = static_cast<float>(interpolate_mass(mass, density_of_step(step)));
            summary.count[step] = static_cast<std::uint32_t>(std::lround(density_of_step(step) * summary.blocks));
        }
    }
    constexpr std::size_t kBatch = 16;
    for (std::size_t first = 0; first < heads_.size(); first += kBatch) {
        post_thumbs(workers, first, std::min(first + kBatch, heads_.size()));
    }
    for (std::size_t i = 0; i < heads_.size(); ++i) post_exact(workers, i, Priority::idle);
}

void Overview::update(Workers& workers, const std::vector<HeadState>& heads) {
    for (std::size_t i = 0; i < heads_.size(); ++i) {
        if (heads_[i].order == heads[i].order) continue;
        if (heads_[i].exact) --exact_;
        heads_[i].order = heads[i].order;
        heads_[i].exact = false;
        ++version_;
        post_exact(workers, i, Priority::normal);
    }
}

void Overview::attach(Workers& workers, std::shared_ptr<const Capture> capture,
                      const std::vector<std::size_t>& with_rows) {
    capture_ = std::move(capture);
    for (const std::size_t i : with_rows) post_exact(workers, i, Priority::idle);
}

void Overview::post_thumbs(Workers& workers, std::size_t first, std::size_t last) {
    std::vector<AxisOrder> orders;
    for (std::size_t i = first; i < last; ++i) orders.push_back(heads_[i].order);
    const auto profile = profile_;
    const auto layers = layer_of_, in_layer = head_of_;
    const HeadKey key{0, 0, group_, grid_, tile_};
    workers.post(Priority::normal, ticket_, [=, this]() -> Workers::Delivery {
        std::vector<HeadSummary> found(last - first);
        for (std::size_t i = first; i < last; ++i) {
            HeadKey own = key;
            own.layer = layers[i];
            own.head = in_layer[i];
            coarse_thumb(*profile, own, orders[i - first], found[i - first]);
        }
        return [=, this, found = std::move(found)] {
            for (std::size_t i = first; i < last; ++i) {
                if (!heads_[i].value.empty()) continue;  // the exact one came first
                heads_[i].value = found[i - first].value;
                heads_[i].entry = found[i - first].entry;
                heads_[i].changed = ++changes_;
                ++thumbs_;
            }
            ++version_;
        };
    });
}

void Overview::post_exact(Workers& workers, std::size_t index, Priority priority) {
    const HeadKey key{layer_of_[index], head_of_[index], group_, grid_, tile_};
    const AxisOrder order = heads_[index].order;
    const std::uint64_t number = ++asked_[index];
    workers.post(priority, ticket_, [=, this, profile = profile_, capture = capture_]() -> Workers::Delivery {
        HeadSummary found = exact_summary(*profile, capture.get(), key, order);
        return [=, this, found = std::move(found)] {
            // The order may have changed meanwhile, or a capture come: then another task is on its way, or done.
            if (asked_[index] != number) return;
            if (heads_[index].value.empty()) ++thumbs_;
            if (!heads_[index].exact) ++exact_;
            heads_[index] = found;
            heads_[index].changed = ++changes_;
            ++version_;
        };
    });
}

}  // namespace paro::viewer
