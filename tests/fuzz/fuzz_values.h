// Valid values made of bytes, small enough to be computed thousands of times a second.
#pragma once

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "fuzz.h"
#include "paro/known_blocks.h"
#include "paro/profile.h"
#include "paro/token_layout.h"

namespace fuzz {

using Bytes = FuzzedDataProvider;

inline std::int32_t pick(Bytes& bytes, std::int32_t least, std::int32_t most) {
    return bytes.ConsumeIntegralInRange<std::int32_t>(least, most);
}

inline paro::Grid grid(Bytes& bytes, std::int32_t most) {
    return {pick(bytes, 1, most), pick(bytes, 1, most), pick(bytes, 1, most)};
}

inline paro::AxisOrder order(Bytes& bytes) { return paro::kAxisOrders[static_cast<std::size_t>(pick(bytes, 0, 5))]; }

inline paro::AxisBins axis_bins(Bytes& bytes, std::int32_t size) {
    paro::AxisBins out;
    std::int32_t edge = bytes.ConsumeBool() ? 0 : -size;
    for (std::int32_t i = pick(bytes, 1, 4); i > 0; --i) {
        out.edges.push_back(edge);
        edge += pick(bytes, 1, size);
    }
    return out;
}

inline paro::HeadGroup head_group(Bytes& bytes, std::int64_t bins) {
    paro::HeadGroup group;
    group.kernel.code = bytes.ConsumeBytes<std::uint8_t>(static_cast<std::size_t>(std::min<std::int64_t>(bins, 64)));
    group.kernel.code.resize(static_cast<std::size_t>(bins), static_cast<std::uint8_t>(pick(bytes, 0, 255)));
    group.kernel.peak = bytes.ConsumeFloatingPointInRange<float>(0.0f, 1.0f);
    for (double& mass : group.mass) mass = bytes.ConsumeProbability<double>();
    return group;
}

// Up to 3 layers of up to 3 heads. Two of the same `shape` byte and grid can be merged.
inline paro::Profile profile(Bytes& bytes, std::uint8_t shape, const paro::Grid& grid) {
    paro::Profile out;
    const std::int32_t layers = 1 + shape % 3, heads = 1 + shape / 3 % 3;
    out.model = {"family", std::string(64, 'a'), layers, heads, 64, ""};
    out.calibration = {{grid}, 20, "euler", pick(bytes, 0, 3), 64, "2026-01-01", "0.1.0"};
    out.timestep_groups = {{1000.0, 500.0}};
    if (bytes.ConsumeBool()) out.timestep_groups.push_back({500.0, 0.0});
    switch (pick(bytes, 0, 2)) {
        case 0:
            out.bins = paro::Bins::even(grid);
            break;
        case 1:
            out.bins = paro::Bins::signed_offsets(grid);
            break;
        default:
            out.bins = {axis_bins(bytes, grid.f), axis_bins(bytes, grid.h), axis_bins(bytes, grid.w)};
    }
    out.defaults.density = bytes.ConsumeFloatingPointInRange<double>(0.05, 1.0);
    for (std::int32_t l = 0; l < layers; ++l) {
        paro::ProfileLayer layer{"block." + std::to_string(pick(bytes, 0, 1) * 10 + l) + ".0", {}};
        for (std::int32_t h = 0; h < heads; ++h) {
            paro::ProfileHead head;
            head.order = order(bytes);
            if (bytes.ConsumeBool()) head.density = bytes.ConsumeFloatingPointInRange<double>(0.05, 1.0);
            head.locked = bytes.ConsumeBool();
            for (std::size_t g = 0; g < out.timestep_groups.size(); ++g) {
                head.groups.push_back(head_group(bytes, out.bins.size()));
            }
            layer.heads.push_back(std::move(head));
        }
        out.layers.push_back(std::move(layer));
    }
    return out;
}

}  // namespace fuzz
