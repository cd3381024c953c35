// One head in the original order and after each of the six orders, side by side on one colour scale, the mask over it.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "app/ui.h"
#include "document/blocks.h"
#include "imgui.h"
#include "panels/map_frame.h"

namespace paro::viewer {

namespace {

struct Cell {
    ImVec2 at;
    float side;
};

// A map's title: its order, what it keeps, and the marks of who chose it.
void draw_title(Ui& ui, AxisOrder order, const Cell& cell, double density, bool exact_rows) {
    const HeadMaps& maps = ui.document.maps();
    const auto i = static_cast<std::size_t>(order);
    ImDrawList* list = ImGui::GetWindowDrawList();
    const bool own = ui.document.heads()[ui.document.selected()].order == order;
    const ImU32 text = ImGui::GetColorU32(ImGuiCol_Text), dim = ImGui::GetColorU32(ImGuiCol_TextDisabled);
    const ImVec2 at = {cell.at.x, cell.at.y};
    const std::string name(to_string(order));
    list->AddRectFilled({at.x, at.y + ui.px(4)}, {at.x + ui.px(8), at.y + ui.px(13)},
                        to_u32(order_color(static_cast<int>(i))), ui.px(2));
    list->AddText({at.x + ui.px(13), at.y}, own ? ImGui::GetColorU32(accent_color(ui)) : text, name.c_str());
    if (!maps.order[i]) return;
    char value[64];
    const bool most = maps.complete() && maps.best(density) == order;
    const BlockRanking& ranking = maps.order[i]->ranking;
    const bool measured = exact_rows && maps.order[i]->rows;
    const double kept =
        100.0 * (measured ? maps.order[i]->rows->retained(Ui::budget(ranking, density)) : ranking.retained(density));
    const bool wide = cell.side > ui.px(185);
    std::snprintf(value, sizeof value, most && wide ? "keeps most, %.1f %%" : "keeps %.1f %%", kept);
    const float width = ImGui::CalcTextSize(value).x;
    list->AddText({at.x + cell.side - width, at.y}, most ? ImGui::GetColorU32(accent_color(ui)) : dim, value);
    if (order == AxisOrder::FHW && wide) list->AddText({at.x + ui.px(48), at.y}, dim, "original");
}

// Beneath a map: whether it is the chosen one, and the paper's score.
void draw_footer(Ui& ui, AxisOrder order, const Cell& cell, float y) {
    const HeadMaps& maps = ui.document.maps();
    ImDrawList* list = ImGui::GetWindowDrawList();
    const bool own = ui.document.heads()[ui.document.selected()].order == order;
    const ImU32 accent = ImGui::GetColorU32(accent_color(ui)), dim = ImGui::GetColorU32(ImGuiCol_TextDisabled);
    const bool scored = maps.metrics_complete();
    const bool theirs = scored && maps.paper_choice() == order;
    char score[16] = "";
    if (scored) std::snprintf(score, sizeof score, " %.2f", maps.paper_scores()[static_cast<std::size_t>(order)]);
    if (own) list->AddText({cell.at.x, y}, accent, "chosen");
    if (!scored) return;
    const float room = cell.side - (own ? ImGui::CalcTextSize("chosen").x + ui.px(8) : 0.0f);
    std::string text = (theirs ? "paper's choice" : "paper") + std::string(score);
    if (ImGui::CalcTextSize(text.c_str()).x > room) text = (theirs ? "paper's" : "paper") + std::string(score);
    const float width = ImGui::CalcTextSize(text.c_str()).x;
    list->AddText({cell.at.x + cell.side - width, y}, theirs ? ImGui::GetColorU32(ImGuiCol_Text) : dim, text.c_str());
}

void draw_cell(Ui& ui, AxisOrder order, const Cell& cell, bool exact_rows) {
    const Document& document = ui.document;
    const double density = document.density(document.selected());
    const float line = ImGui::GetTextLineHeight();
    draw_title(ui, order, cell, density, exact_rows);
    const ImVec2 min = {std::round(cell.at.x), std::round(cell.at.y + line + ui.px(2))};
    const float side = std::floor(cell.side);
    const std::string name = "map." + std::string(to_string(order));
    ImGui::SetCursorScreenPos(min);
    ImGui::InvisibleButton(name.c_str(), {side, side});
    ui.anchor(name);
    MapFrame frame{ui, order, min, side, exact_rows};
    frame.draw();
    frame.interact();
    if (document.heads()[document.selected()].order == order) {
        ImGui::GetWindowDrawList()->AddRect({min.x - 1, min.y - 1}, {min.x + side + 1, min.y + side + 1},
                                            ImGui::GetColorU32(accent_color(ui)), 0.0f, ui.px(2));
    }
    draw_footer(ui, order, cell, min.y + side + ui.px(2));
}

void draw_legend(Ui& ui) {
    const Style style = ui.style();
    const HeadMaps& maps = ui.document.maps();
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float width = ui.px(120), height = ImGui::GetTextLineHeight() - ui.px(3);
    const float tile = static_cast<float>(ui.document.tile());
    char low[32], high[32];
    std::snprintf(low, sizeof low, "%s %%", short_number(100.0 * style.scale.low / tile).c_str());
    std::snprintf(high, sizeof high, "%s %%", short_number(100.0 * style.scale.high / tile).c_str());
    if (maps.high <= 0.0f) return;
    ImGui::AlignTextToFramePadding();
    muted("%s", low);
    ImGui::SameLine();
    const ImVec2 at = ImGui::GetCursorScreenPos();
    const Colormap& map = colormap(style.palette, style.light);
    const float top = at.y + ImGui::GetStyle().FramePadding.y + ui.px(1);
    for (int i = 0; i < 64; ++i) {
        const float x = at.x + width * static_cast<float>(i) / 64.0f;
        list->AddRectFilled({x, top}, {x + width / 64.0f + 0.5f, top + height},
                            to_u32(map[static_cast<std::size_t>(i * 4 + 2)]));
    }
    ImGui::Dummy({width, height});
    tooltip(
        "Share of a query's attention that goes into a block of keys, mean over the queries of a block. The same "
        "scale for all six maps.");
    ImGui::SameLine();
    muted("%s of a query's attention", high);
    if (style.overlay == Overlay::shade || style.overlay == Overlay::mask) {
        ImGui::SameLine(0.0f, ui.px(12));
        const ImVec2 box = ImGui::GetCursorScreenPos();
        list->AddRectFilled({box.x, top}, {box.x + height, top + height}, to_u32(skipped_color(style.light)));
        list->AddRect({box.x, top}, {box.x + height, top + height}, ImGui::GetColorU32(ImGuiCol_TextDisabled));
        ImGui::Dummy({height, height});
        ImGui::SameLine();
        muted("skipped");
    }
}

void draw_header(Ui& ui) {
    Document& document = ui.document;
    const std::size_t selected = document.selected();
    const HeadState& head = document.heads()[selected];
    ImGui::AlignTextToFramePadding();
    ImGui::Text("%s", document.name_of(selected).c_str());
    ImGui::SameLine();
    if (head.locked) {
        ImGui::TextColored(accent_color(ui), "locked");
        tooltip("Calibration keeps this head's order.");
        ImGui::SameLine();
    }
    const OrderMap* own = document.maps().order[static_cast<std::size_t>(head.order)].get();
    if (own != nullptr) {
        const double density = document.density(selected);
        muted("order %s, %lld of %lld blocks computed (%.1f %%), %.1f %% of the attention kept",
              std::string(to_string(head.order)).c_str(), static_cast<long long>(own->ranking.count(density)),
              static_cast<long long>(own->ranking.blocks()),
              100.0 * static_cast<double>(own->ranking.count(density)) / static_cast<double>(own->ranking.blocks()),
              100.0 * own->ranking.retained(density));
    } else {
        muted("computing...");
    }
    draw_legend(ui);
    const bool rows = document.rows_captured(selected);
    ImGui::SameLine(0.0f, ui.px(12));
    ImGui::BeginDisabled(!rows);
    bool exact = ui.head.exact_rows && rows;
    if (ImGui::Checkbox("exact rows", &exact)) ui.head.exact_rows = exact;
    ui.anchor("head.exact_rows");
    ImGui::EndDisabled();
    if (ImGui::IsItemHovered(ImGuiHoveredFlags_AllowWhenDisabled)) {
        ImGui::SetTooltip(
            rows ? "Rows of the softmax as they were sampled, one line per query.\nOff: the map rebuilt "
                   "from the head's offset kernel."
                 : "The capture holds no rows of this head here:\nits map is rebuilt from the offset kernel.");
    }
    if (ui.head.view.x1 - ui.head.view.x0 < 0.999) {
        ImGui::SameLine();
        if (ImGui::SmallButton("Whole map")) ui.head.view = {0.0, 0.0, 1.0, 1.0};
        ui.anchor("head.whole");
    }
    if (ui.head.enlarged >= 0) {
        ImGui::SameLine();
        if (ImGui::SmallButton("All six")) ui.head.enlarged = -1;
    }
}

}  // namespace

void draw_head(Ui& ui) {
    Document& document = ui.document;
    if (!document.has_maps()) return;
    draw_header(ui);
    if (!document.maps().error.empty()) {
        ImGui::TextColored(warning_color(ui), "%s", document.maps().error.c_str());
        return;
    }
    const bool exact_rows = ui.head.exact_rows && document.rows_captured(document.selected());
    const ImVec2 origin = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float text = 2.0f * ImGui::GetTextLineHeight() + ui.px(8), gap = ui.px(12);
    if (ui.head.enlarged >= 0) {
        const float side = std::min(room.x, room.y - text);
        draw_cell(ui, kAxisOrders[static_cast<std::size_t>(ui.head.enlarged)], {origin, side}, exact_rows);
        return;
    }
    // The arrangement in which the six are largest.
    int columns = 1;
    float side = 0.0f;
    for (const int count : {1, 2, 3, 6}) {
        const int rows = 6 / count;
        const float fits = std::min((room.x - gap * static_cast<float>(count - 1)) / static_cast<float>(count),
                                    room.y / static_cast<float>(rows) - text);
        if (fits <= side) continue;
        side = fits;
        columns = count;
    }
    if (side < ui.px(24)) return;
    side = std::floor(side);
    const float width = side * static_cast<float>(columns) + gap * static_cast<float>(columns - 1);
    const float left = origin.x + std::max(0.0f, std::floor((room.x - width) / 2.0f));
    for (std::size_t i = 0; i < kAxisOrders.size(); ++i) {
        const int row = static_cast<int>(i) / columns, column = static_cast<int>(i) % columns;
        const ImVec2 at = {left + static_cast<float>(column) * (side + gap),
                           origin.y + static_cast<float>(row) * (side + text)};
        draw_cell(ui, kAxisOrders[i], {at, side}, exact_rows);
    }
}

}  // namespace paro::viewer
