#include "document/compute/head_maps.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "document/compute/blocks.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

std::string tensor_key(const char* kind, const Profile& profile, std::size_t layer, std::size_t head,
                       std::size_t group) {
    return std::string(kind) + '/' + profile.layers[layer].id + '/' + std::to_string(head) + '/' +
           std::to_string(group);
}

std::uint32_t read_word(const CaptureTensor& tensor, std::size_t index, std::size_t size) {
    std::uint32_t value = 0;
    for (std::size_t b = 0; b < size; ++b) value |= std::uint32_t{tensor.bytes[index * size + b]} << (8 * b);
    return value;
}

const CaptureTensor* find_tensor(const Capture* capture, const std::string& name) {
    if (capture == nullptr) return nullptr;
    const auto found = capture->tensors.find(name);
    return found == capture->tensors.end() ? nullptr : &found->second;
}

// maps/...: codes as those of kernels, relative to 1. Only a map of this very tile can carry masks.
bool read_exact_map(const Capture* capture, const Profile& profile, const HeadKey& key, BlockMap& map) {
    const std::string name =
        tensor_key("maps", profile, key.layer, key.head, key.group) + '/' + std::string(to_string(map.order));
    const CaptureTensor* tensor = find_tensor(capture, name);
    if (tensor == nullptr || tensor->shape != std::vector<std::int64_t>{map.rows, map.cols}) return false;
    for (std::size_t i = 0; i < map.value.size(); ++i) {
        const int code = tensor->bytes[i];
        map.value[i] = code == 0 ? 0.0f : static_cast<float>(std::exp2((code - 255) * 24.0 / 254.0));
    }
    return true;
}

ExactRows read_rows(const CaptureTensor& rows, const CaptureTensor& queries, const HeadKey& key, AxisOrder order,
                    const BlockRanking& ranking) {
    const std::vector<std::int32_t> token_at = permutation(key.grid, order);
    const std::vector<std::int32_t> place_of = inverse_permutation(token_at);
    const auto count = static_cast<std::size_t>(queries.shape[0]);
    std::vector<std::size_t> sorted(count);
    std::iota(sorted.begin(), sorted.end(), std::size_t{0});
    const auto place = [&](std::size_t i) { return place_of[read_word(queries, i, 4)]; };
    std::ranges::stable_sort(sorted, {}, place);

    ExactRows out;
    const std::int64_t keys = key.grid.size(), cols = ranking.cols;
    std::vector<float> line(static_cast<std::size_t>(keys));
    for (const std::size_t i : sorted) {
        for (std::int64_t k = 0; k < keys; ++k) {
            line[k] = half_to_float(static_cast<std::uint16_t>(read_word(rows, i * keys + k, 2)));
        }
        out.query.push_back(static_cast<std::int32_t>(read_word(queries, i, 4)));
        out.tile.push_back(place(i) / key.tile);
        for (std::int64_t col = 0; col < cols; ++col) {
            double sum = 0.0;
            const std::int64_t last = std::min(keys, (col + 1) * key.tile);
            for (std::int64_t at = col * key.tile; at < last; ++at) sum += line[token_at[at]];
            out.value.push_back(static_cast<float>(sum));
        }
        const auto begin = ranking.entry.begin() + out.tile.back() * cols;
        out.entry.insert(out.entry.end(), begin, begin + cols);
    }
    return out;
}

}  // namespace

int step_of_density(double density) {
    return std::clamp(static_cast<int>(std::lround(density * kDensitySteps)), 1, kDensitySteps);
}

double ExactRows::retained(std::uint32_t budget) const {
    double inside = 0.0, all = 0.0;
    for (std::size_t i = 0; i < value.size(); ++i) {
        all += value[i];
        if (entry[i] < std::max(budget, 1u)) inside += value[i];
    }
    return all > 0.0 ? inside / all : 1.0;
}

bool HeadMaps::complete() const {
    return std::ranges::all_of(order, [](const auto& found) { return found != nullptr; });
}

bool HeadMaps::metrics_complete() const {
    return std::ranges::all_of(metric, [](const auto& found) { return found.has_value(); });
}

std::array<double, 6> HeadMaps::paper_scores() const {
    std::array<PaperMetric, 6> all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = metric[i].value();
    return paro::paper_scores(all);
}

AxisOrder HeadMaps::paper_choice() const {
    std::array<PaperMetric, 6> all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = metric[i].value();
    return select_by_paper_metric(all);
}

AxisOrder HeadMaps::best(double density) const {
    AxisOrder best = AxisOrder::FHW;
    double greatest = -1.0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (!order[i]) continue;
        const double retained = order[i]->ranking.retained(density);
        if (retained > greatest) {
            greatest = retained;
            best = kAxisOrders[i];
        }
    }
    return best;
}

std::vector<float> density_curve(const BlockRanking& ranking) {
    std::vector<float> curve;
    for (int step = 1; step <= kDensitySteps; ++step) {
        curve.push_back(static_cast<float>(ranking.retained(density_of_step(step))));
    }
    return curve;
}

bool has_rows(const Capture* capture, const Profile& profile, std::size_t layer, std::size_t head, std::size_t group,
              const Grid& grid) {
    const CaptureTensor* rows = find_tensor(capture, tensor_key("rows", profile, layer, head, group));
    return rows != nullptr && rows->shape[1] == grid.size();
}

OrderMap order_map(const OffsetKernel& kernel, const Profile& profile, const Capture* capture, const HeadKey& key,
                   AxisOrder order) {
    OrderMap out;
    out.map = empty_map(key.grid, order, key.tile, key.tile);
    out.exact = read_exact_map(capture, profile, key, out.map);
    if (!out.exact) out.map = importance(kernel, key.grid, order, key.tile, key.tile);
    out.ranking = rank_blocks(out.map);
    out.curve = density_curve(out.ranking);
    if (has_rows(capture, profile, key.layer, key.head, key.group, key.grid)) {
        const auto* rows = find_tensor(capture, tensor_key("rows", profile, key.layer, key.head, key.group));
        const auto* queries = find_tensor(capture, tensor_key("queries", profile, key.layer, key.head, key.group));
        out.rows = read_rows(*rows, *queries, key, order, out.ranking);
    }
    return out;
}

void compute_head(Workers& workers, const Ticket& ticket, std::shared_ptr<const Profile> profile,
                  std::shared_ptr<const Capture> capture, std::shared_ptr<HeadMaps> maps, AxisOrder first) {
    const HeadKey key = maps->key;
    try {
        const auto& head = profile->layers.at(key.layer).heads.at(key.head);
        maps->kernel = dequantise(profile->bins, head.groups.at(key.group).kernel);
    } catch (const std::exception& error) {
        maps->error = error.what();
        return;
    }
    const OffsetKernel kernel = maps->kernel;
    std::vector<AxisOrder> orders(kAxisOrders.begin(), kAxisOrders.end());
    std::stable_partition(orders.begin(), orders.end(), [first](AxisOrder order) { return order == first; });
    for (const AxisOrder order : orders) {
        workers.post(Priority::urgent, ticket, [=]() -> Workers::Delivery {
            try {
                auto found = std::make_shared<const OrderMap>(order_map(kernel, *profile, capture.get(), key, order));
                return [=] {
                    maps->scale.widen(found->map.value);
                    maps->order[static_cast<std::size_t>(order)] = found;
                };
            } catch (const std::exception& error) {
                return [=, text = std::string(error.what())] { maps->error = text; };
            }
        });
    }
    // After the maps, since it takes longer than all of them.
    for (const AxisOrder order : orders) {
        workers.post(Priority::normal, ticket, [=]() -> Workers::Delivery {
            try {
                const PaperMetric metric = paper_metric(kernel, key.grid, order, key.tile);
                return [=] { maps->metric[static_cast<std::size_t>(order)] = metric; };
            } catch (const std::exception& error) {
                return [=, text = std::string(error.what())] { maps->error = text; };
            }
        });
    }
}

}  // namespace paro::viewer
