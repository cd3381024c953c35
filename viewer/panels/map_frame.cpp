#include "panels/map_frame.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "document/compute/blocks.h"
#include "imgui.h"

namespace paro::viewer {

namespace {

constexpr double kSmallestView = 1.0 / 256.0;

void clamp_view(View& view) {
    double width = std::clamp(view.x1 - view.x0, kSmallestView, 1.0);
    double height = std::clamp(view.y1 - view.y0, kSmallestView, 1.0);
    width = height = std::min(width, height);
    view.x0 = std::clamp(view.x0, 0.0, 1.0 - width);
    view.y0 = std::clamp(view.y0, 0.0, 1.0 - height);
    view.x1 = view.x0 + width;
    view.y1 = view.y0 + height;
}

void row(const char* what, const std::string& text) {
    muted("%s", what);
    ImGui::SameLine(ImGui::GetFontSize() * 6.5f);
    ImGui::TextUnformatted(text.c_str());
}

}  // namespace

MapFrame::Extent MapFrame::extent(bool rows) const {
    const Document& document = ui.document;
    const BlockLayout blocks = block_layout(document.layout(), document.tile());
    const OrderMap* found = map();
    if (rows && exact_rows && found != nullptr && found->rows) {
        return {0, static_cast<std::int64_t>(found->rows->query.size()), 0};
    }
    return {blocks.prefix_blocks, blocks.grid_blocks, blocks.suffix_blocks};
}

const OrderMap* MapFrame::map() const { return ui.document.maps().order[static_cast<std::size_t>(order)].get(); }

void MapFrame::draw() {
    ImDrawList* list = ImGui::GetWindowDrawList();
    const ImVec2 max = {min.x + side, min.y + side};
    const OrderMap* found = map();
    if (found == nullptr) {
        list->AddRectFilled(min, max, to_u32(skipped_color(ui.light())));
        const char* text = "computing...";
        const ImVec2 size = ImGui::CalcTextSize(text);
        list->AddText({min.x + (side - size.x) / 2, min.y + (side - size.y) / 2},
                      ImGui::GetColorU32(ImGuiCol_TextDisabled), text);
        return;
    }
    const bool rows = exact_rows && found->rows;
    const Extent x = extent(false), y = extent(true);
    const View& v = ui.head.view;
    // The view in blocks of the grid; text blocks lie outside of it.
    const View blocks{v.x0 * static_cast<double>(x.all()) - static_cast<double>(x.before),
                      v.y0 * static_cast<double>(y.all()) - static_cast<double>(y.before),
                      v.x1 * static_cast<double>(x.all()) - static_cast<double>(x.before),
                      v.y1 * static_cast<double>(y.all()) - static_cast<double>(y.before)};
    const Document& document = ui.document;
    const double density = document.density(document.selected());
    const std::uint32_t budget = Ui::budget(found->ranking, density);
    Style style = ui.style();
    // A sampled row is one query's attention; a block row is the sum over a tile of queries.
    if (rows) {
        style.scale.low /= static_cast<float>(document.tile());
        style.scale.high /= static_cast<float>(document.tile());
    }
    const int pixels = static_cast<int>(side);
    Key key;
    key.add(static_cast<const void*>(found))
        .add(blocks)
        .add(style.scale.low)
        .add(style.scale.high)
        .add(style.scale.log);
    key.add(style.overlay).add(style.palette).add(style.light).add(budget).add(pixels).add(rows);
    const ImTextureID texture = ui.textures.get("map." + std::string(to_string(order)), key.value(), [&](Image& image) {
        Field field = masked(found->map, found->ranking, density);
        if (rows) field = {y.grid, found->map.cols, found->rows->value, found->rows->entry, budget};
        paint(field, blocks, style, pixels, pixels, image);
    });
    list->PushClipRect(min, max, true);
    Textures::draw(list, texture, min, max);
    draw_text_blocks();
    list->PopClipRect();
}

void MapFrame::draw_text_blocks() {
    const Extent x = extent(false), y = extent(true);
    if (x.before + x.after == 0) return;
    ImDrawList* list = ImGui::GetWindowDrawList();
    const View& v = ui.head.view;
    const auto place_x = [&](std::int64_t block) {
        return min.x + side * static_cast<float>((static_cast<double>(block) / static_cast<double>(x.all()) - v.x0) /
                                                 (v.x1 - v.x0));
    };
    const auto place_y = [&](std::int64_t block) {
        return min.y + side * static_cast<float>((static_cast<double>(block) / static_cast<double>(y.all()) - v.y0) /
                                                 (v.y1 - v.y0));
    };
    const ImU32 fill = to_u32(mix(computed_color(ui.light()), skipped_color(ui.light()), 0.35f));
    const float left = place_x(0), right = place_x(x.all()), top = place_y(0), bottom = place_y(y.all());
    list->AddRectFilled({left, top}, {place_x(x.before), bottom}, fill);
    list->AddRectFilled({place_x(x.before + x.grid), top}, {right, bottom}, fill);
    list->AddRectFilled({left, top}, {right, place_y(y.before)}, fill);
    list->AddRectFilled({left, place_y(y.before + y.grid)}, {right, bottom}, fill);
}

void MapFrame::explain(double x, double y) {
    const OrderMap* found = map();
    const Document& document = ui.document;
    const Extent across = extent(false), down = extent(true);
    const auto col = static_cast<std::int64_t>(std::floor(x * static_cast<double>(across.all()))) - across.before;
    const auto line = static_cast<std::int64_t>(std::floor(y * static_cast<double>(down.all()))) - down.before;
    if (!ImGui::BeginTooltip()) return;
    const bool text_block = col < 0 || col >= across.grid || line < 0 || line >= down.grid;
    if (found == nullptr || text_block) {
        ImGui::TextUnformatted(found == nullptr ? "Not computed yet" : "Text or reference tokens: always computed");
        ImGui::EndTooltip();
        return;
    }
    const bool rows = exact_rows && found->rows;
    const Grid& grid = document.grid();
    const std::int64_t tile_row = rows ? found->rows->tile[static_cast<std::size_t>(line)] : line;
    const std::size_t at = static_cast<std::size_t>(tile_row * found->map.cols + col);
    const TokenRange keys = token_range(grid, order, document.tile(), col);
    const TokenRange queries = token_range(grid, order, document.tile(), tile_row);
    ImGui::Text("%s, query block %lld, key block %lld", std::string(to_string(order)).c_str(),
                static_cast<long long>(tile_row), static_cast<long long>(col));
    if (rows) {
        const std::int32_t token = found->rows->query[static_cast<std::size_t>(line)];
        char place[64];
        std::snprintf(place, sizeof place, "f %d, h %d, w %d", token / (grid.h * grid.w), token / grid.w % grid.h,
                      token % grid.w);
        row("query", place);
    } else {
        row("queries", to_string(queries));
    }
    row("keys", to_string(keys));
    const double value = rows ? found->rows->value[static_cast<std::size_t>(line * found->map.cols + col)]
                              : found->map.value[at] / static_cast<double>(queries.tokens);
    row("attention", short_number(100.0 * value) + " % of a query's, " +
                         short_number(value / static_cast<double>(keys.tokens)) + " a pair");
    const std::uint32_t budget = Ui::budget(found->ranking, document.density(document.selected()));
    row("mask", found->ranking.entry[at] < budget ? "computed" : "skipped");
    ImGui::EndTooltip();
}

void MapFrame::interact() {
    View& view = ui.head.view;
    const ImGuiIO& io = ImGui::GetIO();
    const double width = view.x1 - view.x0, height = view.y1 - view.y0;
    if (ImGui::IsItemActive() && ImGui::IsMouseDragging(ImGuiMouseButton_Left, ui.px(3))) {
        view.x0 -= io.MouseDelta.x / side * width;
        view.y0 -= io.MouseDelta.y / side * height;
        view.x1 = view.x0 + width;
        view.y1 = view.y0 + height;
        clamp_view(view);
        return;
    }
    if (!ImGui::IsItemHovered()) return;
    const double x = view.x0 + (io.MousePos.x - min.x) / side * width;
    const double y = view.y0 + (io.MousePos.y - min.y) / side * height;
    ImGui::SetItemKeyOwner(ImGuiKey_MouseWheelY);
    if (io.MouseWheel != 0.0f) {
        const double factor = std::clamp(std::pow(0.8, io.MouseWheel) * width, kSmallestView, 1.0) / width;
        view = {x - (x - view.x0) * factor, y - (y - view.y0) * factor, x + (view.x1 - x) * factor,
                y + (view.y1 - y) * factor};
        clamp_view(view);
    }
    if (ImGui::IsMouseDoubleClicked(ImGuiMouseButton_Left)) {
        ui.head.enlarged = ui.head.enlarged >= 0 ? -1 : static_cast<int>(order);
    }
    explain(x, y);
}

}  // namespace paro::viewer
