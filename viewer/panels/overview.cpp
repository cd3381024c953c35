// All layers and heads as thumbnails: coloured, sorted, filtered, chosen by mouse or keys.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "document/compute/blocks.h"
#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

void draw_controls(Ui& ui) {
    OverviewState& state = ui.overview;
    const char* colors[] = {"maps", "order", "attention kept", "attention lost"};
    const char* sorts[] = {"by place", "worst first", "by order", "by density"};
    int color = static_cast<int>(state.color), sort = static_cast<int>(state.sort);
    const float width = (ImGui::GetContentRegionAvail().x - ImGui::GetStyle().ItemSpacing.x) / 2.0f;
    ImGui::SetNextItemWidth(width);
    if (ImGui::Combo("##color", &color, colors, 4)) state.color = static_cast<ColorBy>(color);
    ui.anchor("overview.color");
    tooltip(
        "What a tile shows: the head's block map with its mask, its order, or how much of the attention the mask keeps "
        "or "
        "loses at the chosen density.");
    ImGui::SameLine();
    ImGui::SetNextItemWidth(width);
    if (ImGui::Combo("##sort", &sort, sorts, 4)) state.sort = static_cast<SortBy>(sort);
    ui.anchor("overview.sort");
    tooltip("Worst first: the heads whose masks keep the least.");
    const bool filtered = state.filter.any();
    if (filtered) ImGui::PushStyleColor(ImGuiCol_Text, accent_color(ui));
    if (ImGui::Button(filtered ? "Filter (on)" : "Filter")) ImGui::OpenPopup("filter");
    if (filtered) ImGui::PopStyleColor();
    ui.anchor("overview.filter");
    if (ImGui::BeginPopup("filter")) {
        for (std::size_t i = 0; i < 6; ++i) {
            ImGui::PushStyleColor(ImGuiCol_CheckMark, to_u32(order_color(static_cast<int>(i))));
            ImGui::Checkbox(std::string(to_string(kAxisOrders[i])).c_str(), &state.filter.orders[i]);
            ui.anchor("filter." + std::string(to_string(kAxisOrders[i])));
            ImGui::PopStyleColor();
            if (i % 3 != 2) ImGui::SameLine();
        }
        ImGui::Separator();
        ImGui::Checkbox("kept dense", &state.filter.dense_only);
        ImGui::Checkbox("edited", &state.filter.edited_only);
        ui.anchor("filter.edited");
        ImGui::Checkbox("locked", &state.filter.locked_only);
        ImGui::Checkbox("with exact rows", &state.filter.captured_only);
        if (ImGui::Button("Show all")) state.filter = {};
        ui.anchor("filter.all");
        ImGui::EndPopup();
    }
    const std::string count =
        std::to_string(state.list.size()) + " of " + std::to_string(ui.document.head_count()) + " heads";
    flow(text_width(count));
    muted("%s", count.c_str());
}

void draw_legend(Ui& ui) {
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float box = ui.px(10);
    const float y = ui.px(3);
    if (ui.overview.color == ColorBy::order) {
        for (int i = 0; i < 6; ++i) {
            if (i > 0) flow(box + ui.px(3) + text_width("WWW"));
            const ImVec2 at = ImGui::GetCursorScreenPos();
            list->AddRectFilled({at.x, at.y + y}, {at.x + box, at.y + y + box}, to_u32(order_color(i)), ui.px(2));
            ImGui::Dummy({box, box});
            ImGui::SameLine(0.0f, ui.px(3));
            muted("%s", std::string(to_string(kAxisOrders[static_cast<std::size_t>(i)])).c_str());
        }
        return;
    }
    if (ui.overview.color == ColorBy::map) {
        muted_wrapped("grey: skipped at the chosen density");
        return;
    }
    const bool lost = ui.overview.color == ColorBy::error;
    muted(lost ? "0 %%" : "40 %%");
    ImGui::SameLine();
    const ImVec2 at = ImGui::GetCursorScreenPos();
    const float width = ui.px(90);
    for (int i = 0; i < 45; ++i) {
        const float x = at.x + width * static_cast<float>(i) / 45.0f;
        list->AddRectFilled({x, at.y + y}, {x + width / 45.0f + 0.5f, at.y + y + box},
                            to_u32(colormap(Palette::dusk, ui.light())[static_cast<std::size_t>(i * 255 / 44)]));
    }
    ImGui::Dummy({width, box});
    ImGui::SameLine();
    muted(lost ? "40 %% lost" : "100 %% kept");
}

// Colours of computed cells, then of skipped ones.
struct ThumbColors {
    std::array<Rgba, 256> computed, skipped;
    Rgba none;
};

ThumbColors thumb_colors(const Ui& ui) {
    ThumbColors out;
    out.none = skipped_color(ui.light());
    out.computed = colormap(ui.preferences.palette, ui.light());
    const bool shade = ui.preferences.overlay != Overlay::off;
    for (std::size_t i = 0; i < 256; ++i) {
        out.skipped[i] = shade ? shaded(out.computed[i], ui.light()) : out.computed[i];
    }
    return out;
}

// Thumbnail pixels of a head at its density.
void paint_thumb(const HeadSummary& head, double density, const ThumbColors& colors, Rgba* out, int stride) {
    const auto stop = static_cast<std::uint8_t>(step_of_density(density));
    for (int y = 0; y < kThumb; ++y, out += stride) {
        if (head.value.empty()) {
            std::fill_n(out, kThumb, colors.none);
            continue;
        }
        const std::uint8_t *value = head.value.data() + y * kThumb, *entry = head.entry.data() + y * kThumb;
        for (int x = 0; x < kThumb; ++x) out[x] = (entry[x] > stop ? colors.skipped : colors.computed)[value[x]];
    }
}

// One picture with the thumbnails of all heads. Only those that look otherwise now are painted, and their rows
// uploaded: while the density of one head is dragged, that is all that changes.
ImTextureID atlas(Ui& ui, int& columns) {
    const Document& document = ui.document;
    OverviewState& state = ui.overview;
    const std::size_t count = document.head_count();
    columns = std::max(1, static_cast<int>(std::ceil(std::sqrt(count))));
    const int rows = (static_cast<int>(count) + columns - 1) / columns;
    if (state.painted.size() != count || state.atlas.width != columns * kThumb) {
        state.atlas = {columns * kThumb, rows * kThumb, {}};
        state.atlas.pixel.resize(static_cast<std::size_t>(state.atlas.width) * state.atlas.height);
        state.painted.assign(count, 0);
    }
    Key look;
    look.add(ui.light()).add(ui.preferences.palette).add(ui.preferences.overlay);
    std::optional<ThumbColors> colors;
    int first = state.atlas.height, last = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const HeadSummary& head = document.overview().heads()[i];
        const double density = document.density(i);
        const std::uint64_t key = Key(look).add(head.changed).add(step_of_density(density)).value();
        if (state.painted[i] == key) continue;
        state.painted[i] = key;
        if (!colors) colors = thumb_colors(ui);
        const int x = static_cast<int>(i) % columns * kThumb, y = static_cast<int>(i) / columns * kThumb;
        paint_thumb(head, density, *colors, &state.atlas.at(x, y), state.atlas.width);
        first = std::min(first, y);
        last = std::max(last, y + kThumb);
    }
    return ui.textures.put("thumbnails", state.atlas, first, last);
}

ImU32 tile_color(const Ui& ui, std::size_t index) {
    const Document& document = ui.document;
    if (ui.overview.color == ColorBy::order) {
        return to_u32(order_color(static_cast<int>(document.heads()[index].order)));
    }
    const bool lost = ui.overview.color == ColorBy::error;
    const double share = lost ? document.error(index).lost / 0.4 : (document.retained(index) - 0.4) / 0.6;
    const auto place = static_cast<std::size_t>(std::lround(255.0 * std::clamp(share, 0.0, 1.0)));
    return to_u32(colormap(Palette::dusk, ui.light())[place]);
}

void explain(const Ui& ui, std::size_t index) {
    const Document& document = ui.document;
    if (!ImGui::BeginTooltip()) return;
    const HeadState& head = document.heads()[index];
    const HeadSummary& summary = document.overview().heads()[index];
    ImGui::TextUnformatted(document.name_of(index).c_str());
    ImGui::Text("order %s%s, density %.1f %%%s", std::string(to_string(head.order)).c_str(),
                head.locked ? " (locked)" : "", 100.0 * document.density(index), head.density ? " (own)" : "");
    ImGui::Text("keeps %.1f %% of the attention%s", 100.0 * document.retained(index),
                summary.exact ? "" : " (interpolated)");
    const HeadError error = document.error(index);
    muted("lost %.1f %%, %s", 100.0 * error.lost, std::string(to_string(error.source)).c_str());
    if (document.edited(index)) ImGui::TextColored(warning_color(ui), "edited");
    if (document.rows_captured(index)) muted("exact rows captured");
    ImGui::EndTooltip();
}

void draw_tile(Ui& ui, std::size_t index, ImVec2 min, float side, ImTextureID texture, int columns) {
    Document& document = ui.document;
    ImDrawList* list = ImGui::GetWindowDrawList();
    const ImVec2 max = {min.x + side, min.y + side};
    const std::string name = "tile." + std::to_string(index);
    ImGui::SetCursorScreenPos(min);
    if (ImGui::InvisibleButton(name.c_str(), {side, side})) document.select(index);
    ui.anchor(name);
    if (ui.overview.color == ColorBy::map) {
        const auto at = static_cast<int>(index);
        const auto rows = static_cast<float>((static_cast<int>(document.head_count()) + columns - 1) / columns);
        const ImVec2 uv0 = {static_cast<float>(at % columns) / static_cast<float>(columns),
                            static_cast<float>(at / columns) / rows};
        const ImVec2 uv1 = {uv0.x + 1.0f / static_cast<float>(columns), uv0.y + 1.0f / rows};
        list->AddImage(texture, min, max, uv0, uv1);
    } else {
        list->AddRectFilled(min, max, tile_color(ui, index));
    }
    if (side >= ui.px(22)) {
        // The order as a stripe, edits as a corner.
        const ImU32 color = to_u32(order_color(static_cast<int>(document.heads()[index].order)));
        list->AddRectFilled({min.x, max.y - ui.px(3)}, max, color);
        if (document.edited(index)) {
            list->AddTriangleFilled({max.x - ui.px(9), min.y}, {max.x, min.y}, {max.x, min.y + ui.px(9)},
                                    ImGui::GetColorU32(warning_color(ui)));
        }
    }
    if (index == document.selected()) {
        list->AddRect({min.x - ui.px(2), min.y - ui.px(2)}, {max.x + ui.px(2), max.y + ui.px(2)},
                      ImGui::GetColorU32(accent_color(ui)), 0.0f, ui.px(2));
    }
    if (ImGui::IsItemHovered()) explain(ui, index);
}

struct Arrangement {
    float side = 0.0f, gap = 0.0f, label = 0.0f;
    int columns = 1;
    bool by_layer = false;
};

Arrangement arrange(const Ui& ui, float width) {
    const Document& document = ui.document;
    Arrangement out;
    out.gap = ui.px(5);
    out.by_layer = ui.overview.sort == SortBy::place && !ui.overview.filter.any();
    if (out.by_layer) {
        for (const ProfileLayer& layer : document.base().layers) {
            out.label = std::max(out.label, ImGui::CalcTextSize(layer.id.c_str()).x + ui.px(8));
        }
        out.columns = std::max(1, document.base().model.heads);
        out.label = std::min(out.label, width * 0.45f);
    } else {
        out.columns = std::max(1, static_cast<int>((width + out.gap) / (ui.px(52) + out.gap)));
    }
    const float room = width - out.label - out.gap * static_cast<float>(out.columns - 1);
    out.side = std::floor(
        std::clamp(room / static_cast<float>(out.columns), ui.px(9), ui.px(ui.maximised.empty() ? 72 : 150)));
    if (out.side < ui.px(20)) out.gap = ui.px(2);
    return out;
}

}  // namespace

void draw_overview(Ui& ui) {
    Document& document = ui.document;
    OverviewState& state = ui.overview;
    state.list = list_heads(document, state.sort, state.filter);
    draw_controls(ui);
    draw_legend(ui);
    if (!ImGui::BeginChild("tiles", {0, 0}, 0, ImGuiWindowFlags_HorizontalScrollbar)) {
        ImGui::EndChild();
        return;
    }
    int atlas_columns = 1;
    const ImTextureID texture = atlas(ui, atlas_columns);
    const Arrangement a = arrange(ui, ImGui::GetContentRegionAvail().x - ui.px(4));
    state.columns = a.columns;
    const ImVec2 origin = {ImGui::GetCursorScreenPos().x + ui.px(2), ImGui::GetCursorScreenPos().y + ui.px(2)};
    const float step = a.side + a.gap;
    const float top = ImGui::GetWindowPos().y, bottom = top + ImGui::GetWindowHeight();
    std::size_t shown_layer = document.layers();
    for (std::size_t i = 0; i < state.list.size(); ++i) {
        const std::size_t index = state.list[i];
        const std::size_t layer = document.layer_of(index);
        const float column =
            static_cast<float>(a.by_layer ? document.head_of(index) : i % static_cast<std::size_t>(a.columns));
        const float row = static_cast<float>(a.by_layer ? layer : i / static_cast<std::size_t>(a.columns));
        const ImVec2 min = {origin.x + a.label + column * step, origin.y + row * step};
        const bool selected = index == document.selected();
        if (selected && state.scroll_to_selected) {
            ImGui::SetScrollFromPosY(min.y - top, 0.5f);
            ImGui::SetScrollFromPosX(min.x - ImGui::GetWindowPos().x, 0.5f);
            state.scroll_to_selected = false;
        }
        if (min.y + step < top || min.y > bottom) continue;
        if (a.by_layer && layer != shown_layer && a.side >= ImGui::GetTextLineHeight() * 0.8f) {
            shown_layer = layer;
            ImGui::GetWindowDrawList()->AddText({origin.x, min.y + (a.side - ImGui::GetTextLineHeight()) / 2},
                                                ImGui::GetColorU32(ImGuiCol_TextDisabled),
                                                fitted(document.base().layers[layer].id, a.label - ui.px(6)).c_str());
        }
        draw_tile(ui, index, min, a.side, texture, atlas_columns);
    }
    const auto rows = static_cast<float>(a.by_layer ? document.layers()
                                                    : (state.list.size() + static_cast<std::size_t>(a.columns) - 1) /
                                                          static_cast<std::size_t>(a.columns));
    ImGui::SetCursorScreenPos(origin);
    ImGui::Dummy({a.label + step * static_cast<float>(a.columns) - a.gap, rows * step});
    ImGui::EndChild();
}

}  // namespace paro::viewer
