// Profiles for tests, and what it takes to damage them.
#pragma once

#include <cmath>
#include <filesystem>
#include <random>
#include <string>

#include "paro/error.h"
#include "paro/profile.h"

namespace samples {

// Codes as real heads have them: falling with the offset, a little noise.
inline paro::HeadGroup head_group(const paro::Bins& bins, std::uint32_t seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t count) { return static_cast<double>(random() % count); };
    const double slope[3] = {0.5 + below(64) / 8.0, 0.5 + below(64) / 8.0, 0.5 + below(64) / 8.0};
    paro::HeadGroup group;
    for (std::int32_t f = 0; f < bins.f.count(); ++f) {
        for (std::int32_t h = 0; h < bins.h.count(); ++h) {
            for (std::int32_t w = 0; w < bins.w.count(); ++w) {
                const double level = 255.0 - slope[0] * f - slope[1] * h - slope[2] * w - below(12);
                group.kernel.code.push_back(static_cast<std::uint8_t>(level < 1.0 ? below(2) : level));
            }
        }
    }
    group.kernel.peak = static_cast<float>((below(100000) + 1.0) * 1.7e-6);
    for (std::size_t i = 0; i < group.mass.size(); ++i) {
        group.mass[i] = 1.0 - std::exp(-(4.0 + below(1000) / 75.0) * paro::kMassDensities[i]);
    }
    return group;
}

inline paro::Profile profile(const paro::Grid& grid, std::int32_t layers, std::int32_t heads, std::size_t groups,
                             paro::Bins bins) {
    paro::Profile profile;
    profile.model = {"wan21", std::string(60, 'a') + "0f19", layers, heads, 128, ""};
    profile.calibration = {{grid}, 20, "euler", 1, 64, "2026-09-30", "0.1.0"};
    profile.timestep_groups = {{1000.0, 500.25}, {500.25, 0.0}};
    profile.timestep_groups.resize(groups);
    profile.bins = std::move(bins);
    for (std::int32_t l = 0; l < layers; ++l) {
        paro::ProfileLayer layer{"block." + std::to_string(l) + ".0", {}};
        for (std::int32_t h = 0; h < heads; ++h) {
            const auto seed = static_cast<std::uint32_t>(l * heads + h);
            paro::ProfileHead head;
            head.order = paro::kAxisOrders[seed % 6];
            if (h == 1) head.density = 0.1 + 0.7 / 3.0;
            head.locked = h == 1;
            for (std::size_t g = 0; g < groups; ++g) {
                head.groups.push_back(head_group(profile.bins, seed * 2 + static_cast<std::uint32_t>(g)));
            }
            layer.heads.push_back(std::move(head));
        }
        profile.layers.push_back(std::move(layer));
    }
    return profile;
}

// Two layers, two heads, two groups on a small grid.
inline paro::Profile small() { return profile({3, 4, 5}, 2, 2, 2, paro::Bins::even({3, 4, 5})); }

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::logic_error("the sample does not hold " + from);
    return text.replace(at, from.size(), to);
}

// What Error says, or what came instead of one.
template <typename Work>
std::string error_of(Work work) {
    try {
        work();
    } catch (const paro::Error& error) {
        return error.what();
    }
    return "no error";
}

// A folder of its own, removed at the end.
class Folder {
   public:
    Folder() : path_(std::filesystem::temp_directory_path() / ("paro-test-" + std::to_string(std::random_device{}()))) {
        std::filesystem::create_directories(path_);
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }
    std::ptrdiff_t files() const {
        return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
    }

   private:
    std::filesystem::path path_;
};

// One to four bytes flipped, cut, doubled or inserted, always the same for the same seed.
inline std::string mutated(std::string text, std::uint32_t seed) {
    std::mt19937 random(seed);
    const auto place = [&] { return text.empty() ? 0 : random() % text.size(); };
    constexpr std::string_view kBytes = "{}[]\",:0-9e.\\\x00\x01\x7F\xC3\xFF nulltrue";
    for (auto edits = 1 + random() % 4; edits > 0; --edits) {
        switch (random() % 5) {
            case 0:
                if (!text.empty()) text[place()] ^= static_cast<char>(1u << random() % 8);
                break;
            case 1:
                text.insert(place(), 1, kBytes[random() % kBytes.size()]);
                break;
            case 2:
                text.erase(place(), 1 + random() % 8);
                break;
            case 3: {
                const std::size_t from = place();
                text.insert(place(), std::string(text, from, 1 + random() % 64));
                break;
            }
            default:
                if (random() % 4 == 0) text.resize(place());
                if (!text.empty()) text[place()] = kBytes[random() % kBytes.size()];
        }
    }
    return text;
}

}  // namespace samples
