// Colour maps, walked at constant speed through OKLab (Ottosson 2020).
#include <algorithm>
#include <cmath>
#include <vector>

#include "paro/paint.h"

namespace paro {

namespace {

using Lab = std::array<double, 3>;

double to_srgb(double l) { return l <= 0.0031308 ? 12.92 * l : 1.055 * std::pow(l, 1.0 / 2.4) - 0.055; }

std::array<double, 3> linear_rgb(const Lab& lab) {
    const double l = std::pow(lab[0] + 0.3963377774 * lab[1] + 0.2158037573 * lab[2], 3);
    const double m = std::pow(lab[0] - 0.1055613458 * lab[1] - 0.0638541728 * lab[2], 3);
    const double s = std::pow(lab[0] - 0.0894841775 * lab[1] - 1.2914855480 * lab[2], 3);
    return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
            -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
            -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

bool in_gamut(const Lab& lab) {
    const auto rgb = linear_rgb(lab);
    return std::ranges::all_of(rgb, [](double c) { return c > -1e-4 && c < 1.0 + 1e-4; });
}

Rgba to_rgba(const Lab& lab) {
    const auto rgb = linear_rgb(lab);
    const auto byte = [](double c) {
        return static_cast<std::uint8_t>(std::lround(255.0 * to_srgb(std::clamp(c, 0.0, 1.0))));
    };
    return {byte(rgb[0]), byte(rgb[1]), byte(rgb[2]), 255};
}

// Lightness, hue in degrees and chroma, the chroma cut to what a screen can show.
Lab from_lch(double lightness, double chroma, double hue) {
    const double angle = hue * 3.14159265358979323846 / 180.0;
    const auto at = [&](double c) { return Lab{lightness, c * std::cos(angle), c * std::sin(angle)}; };
    if (in_gamut(at(chroma))) return at(chroma);
    double inside = 0.0;
    for (int i = 0; i < 40; ++i) {
        const double middle = (inside + chroma) / 2.0;
        (in_gamut(at(middle)) ? inside : chroma) = middle;
    }
    return at(inside);
}

// A path through OKLab, walked at constant speed.
template <typename Path>
Colormap even_steps(Path path) {
    constexpr int kFine = 4096;
    std::vector<Lab> point;
    std::vector<double> length{0.0};
    for (int i = 0; i <= kFine; ++i) {
        point.push_back(path(static_cast<double>(i) / kFine));
        if (i == 0) continue;
        const Lab &a = point[point.size() - 2], &b = point.back();
        length.push_back(length.back() + std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
    }
    Colormap map{};
    std::size_t at = 0;
    for (std::size_t i = 0; i < map.size(); ++i) {
        const double wanted = length.back() * static_cast<double>(i) / static_cast<double>(map.size() - 1);
        while (at + 1 < length.size() && length[at + 1] < wanted) ++at;
        map[i] = to_rgba(point[at]);
    }
    return map;
}

Colormap dusk(bool light) {
    // From deep blue over violet-red to pale yellow, the hue turning with the lightness.
    return even_steps([light](double t) {
        if (light) return from_lch(0.975 - 0.72 * t, 0.02 + 0.30 * std::sin(1.7 * t), 105.0 - 195.0 * t);
        return from_lch(0.13 + 0.83 * t, 0.05 + 0.16 * std::sin(3.0 * t), 272.0 + 188.0 * std::pow(t, 0.9));
    });
}

Colormap grey(bool light) {
    return even_steps([light](double t) { return from_lch(light ? 0.98 - 0.88 * t : 0.10 + 0.88 * t, 0.0, 0.0); });
}

}  // namespace

const Colormap& colormap(Palette palette, bool light) {
    static const std::array<Colormap, 4> maps = {dusk(false), dusk(true), grey(false), grey(true)};
    return maps[static_cast<std::size_t>(palette) * 2 + (light ? 1 : 0)];
}

Rgba order_color(int order) {
    constexpr std::array<Rgba, 6> kColors = {Rgba{0, 114, 178},   Rgba{230, 159, 0},  Rgba{0, 158, 115},
                                             Rgba{204, 121, 167}, Rgba{86, 180, 233}, Rgba{213, 94, 0}};
    return kColors[static_cast<std::size_t>(order) % kColors.size()];
}

Rgba mix(Rgba a, Rgba b, float t) {
    const auto between = [t](std::uint8_t x, std::uint8_t y) {
        return static_cast<std::uint8_t>(std::lround(static_cast<float>(x) + (static_cast<float>(y) - x) * t));
    };
    return {between(a.r, b.r), between(a.g, b.g), between(a.b, b.b), between(a.a, b.a)};
}

}  // namespace paro
