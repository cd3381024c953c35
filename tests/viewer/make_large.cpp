// paro_viewer_large FOLDER [F H W]: a generated profile of Wan 14B's size (40 layers of 40 heads, two timestep groups)
// with a capture of 32 heads with exact rows, 64 queries each, for measuring the viewer. Not a real model's.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "paro/capture.h"
#include "profile_samples.h"

namespace {

constexpr int kLayers = 40, kHeads = 40, kQueries = 64;

// A head that looks along its own axes: levels fall with the offset, each axis at a rate of its own.
paro::HeadGroup head_group(const paro::Bins& bins, std::mt19937& random) {
    paro::HeadGroup group;
    const auto below = [&](int count) { return static_cast<double>(random() % static_cast<unsigned>(count)); };
    const double rate[3] = {1.0 + below(120) / 4.0, 1.0 + below(120) / 4.0, 1.0 + below(120) / 4.0};
    for (int f = 0; f < bins.f.count(); ++f) {
        for (int h = 0; h < bins.h.count(); ++h) {
            for (int w = 0; w < bins.w.count(); ++w) {
                const double level = 255.0 - rate[0] * f - rate[1] * h - rate[2] * w - below(9);
                group.kernel.code.push_back(static_cast<std::uint8_t>(level < 1.0 ? 1 : level));
            }
        }
    }
    group.kernel.peak = 1e-3f;
    for (std::size_t i = 0; i < 4; ++i)
        group.mass[i] = 1.0 - std::exp(-(3.0 + below(100) / 30.0) * paro::kMassDensities[i]);
    return group;
}

std::uint16_t to_half(float value) {  // 0 to 1, rounded down
    int exponent = 0;
    const float fraction = std::frexp(value, &exponent);
    if (exponent < -13) return static_cast<std::uint16_t>(std::ldexp(value, 24));
    return static_cast<std::uint16_t>((exponent + 14) << 10 | static_cast<int>((fraction * 2.0f - 1.0f) * 1024.0f));
}

void add_rows(paro::Capture& capture, std::size_t layer, int head, int group, const paro::Grid& grid,
              std::mt19937& random) {
    const paro::Profile& profile = capture.profile;
    const auto kernel = paro::dequantise(
        profile.bins,
        profile.layers[layer].heads[static_cast<std::size_t>(head)].groups[static_cast<std::size_t>(group)].kernel);
    paro::CaptureTensor rows{"F16", {kQueries, grid.size()}, {}}, queries{"I32", {kQueries}, {}};
    std::vector<float> line(static_cast<std::size_t>(grid.size()));
    for (int q = 0; q < kQueries; ++q) {
        const auto token = static_cast<std::int32_t>(random() % static_cast<unsigned>(grid.size()));
        const int qf = token / (grid.h * grid.w), qh = token / grid.w % grid.h, qw = token % grid.w;
        double sum = 0.0;
        std::size_t at = 0;
        for (int f = 0; f < grid.f; ++f) {
            for (int h = 0; h < grid.h; ++h) {
                const std::int64_t base = profile.bins.index(f - qf, h - qh, 0);
                for (int w = 0; w < grid.w; ++w) {
                    const float noise = 0.5f + static_cast<float>(random() % 1024) / 1024.0f;
                    sum += line[at++] =
                        noise * kernel.value[static_cast<std::size_t>(base + profile.bins.w.bin(w - qw))];
                }
            }
        }
        for (const float value : line) {
            const std::uint16_t bits = to_half(static_cast<float>(value / sum));
            rows.bytes.push_back(static_cast<std::uint8_t>(bits & 255));
            rows.bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
        }
        for (int shift = 0; shift < 32; shift += 8) queries.bytes.push_back(static_cast<std::uint8_t>(token >> shift));
    }
    const std::string key = profile.layers[layer].id + '/' + std::to_string(head) + '/' + std::to_string(group);
    capture.tensors["rows/" + key] = std::move(rows);
    capture.tensors["queries/" + key] = std::move(queries);
}

}  // namespace

int main(int count, char** values) {
    if (count != 2 && count != 5) {
        std::fprintf(stderr, "paro_viewer_large FOLDER [F H W]\n");
        return 64;
    }
    const paro::Grid grid = count == 5 ? paro::Grid{std::atoi(values[2]), std::atoi(values[3]), std::atoi(values[4])}
                                       : paro::Grid{21, 30, 52};  // 480p, 81 frames
    std::mt19937 random(1);
    paro::Capture capture;
    capture.profile = samples::profile(grid, kLayers, kHeads, 2, paro::Bins::even(grid));
    for (auto& layer : capture.profile.layers) {
        for (auto& head : layer.heads) {
            head.density.reset();
            head.locked = false;
            for (auto& group : head.groups) group = head_group(capture.profile.bins, random);
        }
    }
    for (int i = 0; i < 32; ++i) {
        for (int group = 0; group < 2; ++group) {
            add_rows(capture, static_cast<std::size_t>(i * kLayers / 32), i * 7 % kHeads, group, grid, random);
        }
    }
    const std::filesystem::path folder = values[1];
    std::filesystem::create_directories(folder);
    save_profile(capture.profile, folder / "large.json");
    save_capture(capture, folder / "large.capture.safetensors");
    std::printf("%s\n", (folder / "large.json").string().c_str());
    return 0;
}
