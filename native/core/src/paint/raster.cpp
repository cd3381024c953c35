// Values to colours, and maps to pixels.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "paro/paint.h"

namespace paro {

namespace {

constexpr float kShade = 0.87f;  // how far a skipped block goes towards the background

// Colours by the upper half of a positive float's bits: steps of 0.8 %, finer than a colour of any map here.
class ColorTable {
   public:
    explicit ColorTable(const Style& style) : style_(style), color_(1u << 15) {
        const Colormap& map = colormap(style.palette, style.light);
        for (std::uint32_t i = 0; i < color_.size(); ++i) {
            const float value = std::bit_cast<float>(i << 16 | 0x8000u);
            color_[i] = map[static_cast<std::size_t>(std::lround(255.0f * style.scale.place(value)))];
        }
    }
    Rgba operator[](float value) const { return color_[std::bit_cast<std::uint32_t>(std::max(value, 0.0f)) >> 16]; }
    const Style& style() const { return style_; }

   private:
    Style style_;
    std::vector<Rgba> color_;
};

// The newest tables are kept: a panel asks for the same ones in every frame.
std::shared_ptr<const ColorTable> color_table(const Style& style) {
    static std::mutex mutex;
    static std::vector<std::shared_ptr<const ColorTable>> tables;
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& table : tables) {
        if (table->style() == style) return table;
    }
    if (tables.size() > 8) tables.clear();
    return tables.emplace_back(std::make_shared<const ColorTable>(style));
}

struct Run {
    std::int64_t begin = 0, end = 0;  // blocks under a pixel; empty outside of the map
};

std::vector<Run> runs(double from, double to, int pixels, std::int64_t blocks) {
    std::vector<Run> result(static_cast<std::size_t>(pixels));
    const double step = (to - from) / pixels;
    for (int i = 0; i < pixels; ++i) {
        Run& run = result[static_cast<std::size_t>(i)];
        if (step <= 1.0) {  // a block covers pixels: the one under the pixel's middle
            run.begin = static_cast<std::int64_t>(std::floor(from + (i + 0.5) * step));
            run.end = run.begin + 1;
        } else {
            run.begin = static_cast<std::int64_t>(std::floor(from + i * step));
            run.end = std::max(run.begin + 1, static_cast<std::int64_t>(std::floor(from + (i + 1) * step)));
        }
        run.begin = std::clamp<std::int64_t>(run.begin, 0, blocks);
        run.end = std::clamp<std::int64_t>(run.end, 0, blocks);
    }
    return result;
}

struct Sample {
    float mean = 0.0f, inside = 1.0f;
};

Sample sample(const Field& field, const Run& y, const Run& x) {
    double sum = 0.0;
    std::int64_t in = 0;
    for (std::int64_t row = y.begin; row < y.end; ++row) {
        const std::int64_t first = row * field.cols;
        float line = 0.0f;
        for (std::int64_t i = first + x.begin; i < first + x.end; ++i) line += field.value[i];
        sum += line;
        if (field.entry.empty()) continue;
        for (std::int64_t i = first + x.begin; i < first + x.end; ++i) in += field.entry[i] < field.budget ? 1 : 0;
    }
    const auto blocks = static_cast<double>((y.end - y.begin) * (x.end - x.begin));
    const double share = field.entry.empty() ? 1.0 : static_cast<double>(in) / blocks;
    return {static_cast<float>(sum / blocks), static_cast<float>(share)};
}

Rgba pixel_color(const Sample& s, const ColorTable& colors, const Style& style) {
    if (style.overlay == Overlay::mask) return mix(skipped_color(style.light), computed_color(style.light), s.inside);
    const Rgba color = colors[s.mean];
    if (style.overlay != Overlay::shade || s.inside >= 1.0f) return color;
    return shaded(color, style.light, 1.0f - s.inside);
}

// Lines between computed and skipped blocks, where blocks are large enough to have a border.
void draw_outline(const Field& field, const std::vector<Run>& ys, const std::vector<Run>& xs, const Style& style,
                  Image& out) {
    const auto in = [&](const Run& y, const Run& x) {
        return field.entry[y.begin * field.cols + x.begin] < field.budget;
    };
    const Rgba line = style.light ? Rgba{0, 0, 0} : Rgba{255, 255, 255};
    for (int y = 0; y < out.height; ++y) {
        for (int x = 0; x < out.width; ++x) {
            if (ys[y].begin >= ys[y].end || xs[x].begin >= xs[x].end) continue;
            const bool here = in(ys[y], xs[x]);
            const bool left = x > 0 && xs[x - 1].begin < xs[x - 1].end && in(ys[y], xs[x - 1]) != here;
            const bool above = y > 0 && ys[y - 1].begin < ys[y - 1].end && in(ys[y - 1], xs[x]) != here;
            if (left || above) out.at(x, y) = line;
        }
    }
}

}  // namespace

float Scale::place(float value) const {
    if (!(value > low)) return 0.0f;
    if (value >= high) return 1.0f;
    return log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
}

void Scale::widen(std::span<const float> values) {
    for (const float value : values) {
        high = std::max(high, value);
        if (value > 0.0f) low = low > 0.0f ? std::min(low, value) : value;
    }
    low = std::clamp(low, high * 1e-4f, high * 0.1f);
}

Rgba skipped_color(bool light) { return light ? Rgba{232, 232, 234} : Rgba{44, 46, 51}; }
Rgba computed_color(bool light) { return light ? Rgba{23, 78, 140} : Rgba{240, 200, 90}; }
Rgba shaded(Rgba color, bool light, float share) { return mix(color, skipped_color(light), kShade * share); }

Field masked(const BlockMap& map, const BlockRanking& ranking, double density) {
    const std::int64_t budget = std::max<std::int64_t>(1, ranking.budget(density));
    return {map.rows, map.cols, map.value, ranking.entry, static_cast<std::uint32_t>(budget)};
}

void paint(const Field& field, const View& view, const Style& style, int width, int height, Image& out) {
    out.width = width;
    out.height = height;
    out.pixel.assign(static_cast<std::size_t>(width) * height, Rgba{0, 0, 0, 0});
    if (field.rows == 0 || field.cols == 0) return;
    const std::vector<Run> ys = runs(view.y0, view.y1, height, field.rows);
    const std::vector<Run> xs = runs(view.x0, view.x1, width, field.cols);
    const std::shared_ptr<const ColorTable> table = color_table(style);
    const ColorTable& colors = *table;
    for (int y = 0; y < height; ++y) {
        if (ys[y].begin >= ys[y].end) continue;
        const bool as_above = y > 0 && ys[y - 1].begin == ys[y].begin && ys[y - 1].end == ys[y].end;
        Rgba* line = out.pixel.data() + static_cast<std::size_t>(y) * width;
        if (as_above) {
            std::copy(line - width, line, line);
            continue;
        }
        for (int x = 0; x < width; ++x) {
            if (xs[x].begin >= xs[x].end) continue;
            const bool as_left = x > 0 && xs[x - 1].begin == xs[x].begin && xs[x - 1].end == xs[x].end;
            line[x] = as_left ? line[x - 1] : pixel_color(sample(field, ys[y], xs[x]), colors, style);
        }
    }
    const double block_pixels = width / std::max(1e-9, view.x1 - view.x0);
    if (style.overlay == Overlay::outline && !field.entry.empty() && block_pixels >= 3.0) {
        draw_outline(field, ys, xs, style, out);
    }
}

}  // namespace paro
