// One head in the original order and after each of the six orders, side by side on one colour scale, the mask over it.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "document/compute/blocks.h"
#include "imgui.h"
#include "imgui_internal.h"
#include "panels/map_frame.h"
#include "panels/ui.h"

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
    const bool most = maps.complete() && maps.best(density) == order;
    const BlockRanking& ranking = maps.order[i]->ranking;
    const bool measured = exact_rows && maps.order[i]->rows;
    const double kept =
        100.0 * (measured ? maps.order[i]->rows->retained(Ui::budget(ranking, density)) : ranking.retained(density));
    char figure[32];
    std::snprintf(figure, sizeof figure, "%.1f %%", kept);
    const std::string value = figure;
    const float gap = ui.px(8);
    float left = ui.px(13) + text_width(name) + gap;
    const std::string original = order == AxisOrder::FHW ? "original" : "";
    if (!original.empty() && cell.side - left > text_width(original) + gap + text_width("keeps " + value)) {
        list->AddText({at.x + left, at.y}, dim, original.c_str());
        left += text_width(original) + gap;
    }
    const std::string shown = most ? fullest({"keeps most, " + value, "keeps " + value, value}, cell.side - left)
                                   : fullest({"keeps " + value, value}, cell.side - left);
    list->AddText({at.x + cell.side - text_width(shown), at.y}, most ? ImGui::GetColorU32(accent_color(ui)) : dim,
                  shown.c_str());
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
    const std::string number = score;
    const std::string text = theirs ? fullest({"paper's choice" + number, "paper's" + number}, room)
                                    : fullest({"paper" + number, number.substr(1)}, room);
    list->AddText({cell.at.x + cell.side - text_width(text), y}, theirs ? ImGui::GetColorU32(ImGuiCol_Text) : dim,
                  text.c_str());
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
    // What was drawn by hand counts as contents, so that the panel scrolls to it.
    ImGui::SetCursorScreenPos({min.x, min.y + side + ui.px(2)});
    ImGui::Dummy({side, line});
}

void draw_legend(Ui& ui) {
    const Style style = ui.style();
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float width = ui.px(120), height = ImGui::GetTextLineHeight() - ui.px(3);
    const float tile = static_cast<float>(ui.document.tile());
    char low[32], high[32];
    std::snprintf(low, sizeof low, "%s %%", short_number(100.0 * style.scale.low / tile).c_str());
    std::snprintf(high, sizeof high, "%s %%", short_number(100.0 * style.scale.high / tile).c_str());
    if (style.scale.high <= 0.0f) return;
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
    const std::string above = std::string(high) + " of a query's attention";
    flow(text_width(above));
    muted("%s", above.c_str());
    if (style.overlay == Overlay::shade || style.overlay == Overlay::mask) {
        flow(height + ImGui::GetStyle().ItemSpacing.x + text_width("skipped"), ui.px(12));
        const ImVec2 box = ImGui::GetCursorScreenPos();
        const float box_top = box.y + ImGui::GetCurrentWindowRead()->DC.CurrLineTextBaseOffset + ui.px(1);
        list->AddRectFilled({box.x, box_top}, {box.x + height, box_top + height}, to_u32(skipped_color(style.light)));
        list->AddRect({box.x, box_top}, {box.x + height, box_top + height}, ImGui::GetColorU32(ImGuiCol_TextDisabled));
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
    fitted_text(document.name_of(selected), ImGui::GetContentRegionAvail().x);
    if (head.locked) {
        flow(text_width("locked"));
        ImGui::TextColored(accent_color(ui), "locked");
        tooltip("Calibration keeps this head's order.");
    }
    const OrderMap* own = document.maps().order[static_cast<std::size_t>(head.order)].get();
    if (own != nullptr) {
        const double density = document.density(selected);
        char text[160];
        std::snprintf(
            text, sizeof text, "order %s, %lld of %lld blocks computed (%.1f %%), %.1f %% of the attention kept",
            std::string(to_string(head.order)).c_str(), static_cast<long long>(own->ranking.count(density)),
            static_cast<long long>(own->ranking.blocks()),
            100.0 * static_cast<double>(own->ranking.count(density)) / static_cast<double>(own->ranking.blocks()),
            100.0 * own->ranking.retained(density));
        flow(text_width(text));
        muted_wrapped("%s", text);
    } else {
        flow(text_width("computing..."));
        muted("computing...");
    }
    draw_legend(ui);
    const bool rows = document.rows_captured(selected);
    flow(checkbox_width("exact rows"), ui.px(12));
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
        flow(button_width("Whole map"));
        if (ImGui::SmallButton("Whole map")) ui.head.view = {0.0, 0.0, 1.0, 1.0};
        ui.anchor("head.whole");
    }
    if (ui.head.enlarged >= 0) {
        flow(button_width("All six"));
        if (ImGui::SmallButton("All six")) ui.head.enlarged = -1;
    }
}

}  // namespace

void draw_head(Ui& ui) {
    Document& document = ui.document;
    if (!document.has_maps()) return;
    draw_header(ui);
    if (!document.maps().error.empty()) {
        wrapped(warning_color(ui), "%s", document.maps().error.c_str());
        return;
    }
    const bool exact_rows = ui.head.exact_rows && document.rows_captured(document.selected());
    const ImVec2 origin = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float text = 2.0f * ImGui::GetTextLineHeight() + ui.px(8), gap = ui.px(12);
    if (ui.head.enlarged >= 0) {
        const float side = std::max(std::min(room.x, room.y - text), ui.px(96));
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
    // Smaller ones say nothing: the panel scrolls.
    if (side < ui.px(96)) {
        columns = room.x >= 3.0f * ui.px(96) + 2.0f * gap ? 3 : 1;
        side = ui.px(96);
    }
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
