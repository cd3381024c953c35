// The offset kernel: how much attention goes to a key at a distance, as three slices through it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "document/compute/blocks.h"
#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

constexpr const char* kAxisName[3] = {"frames", "rows", "columns"};

struct Slice {
    int down, across, fixed;  // axes
};
constexpr Slice kSlices[3] = {{1, 2, 0}, {0, 2, 1}, {0, 1, 2}};

const AxisBins& bins_of(const Bins& bins, int axis) { return axis == 0 ? bins.f : axis == 1 ? bins.h : bins.w; }

float value_at(const OffsetKernel& kernel, const Slice& slice, int down, int across, int fixed) {
    std::int64_t at[3];
    at[slice.down] = down;
    at[slice.across] = across;
    at[slice.fixed] = fixed;
    const Bins& bins = kernel.bins;
    return kernel.value[static_cast<std::size_t>((at[0] * bins.h.count() + at[1]) * bins.w.count() + at[2])];
}

Scale scale_of(const OffsetKernel& kernel, bool log) {
    float high = 0.0f;
    for (const float value : kernel.value) high = std::max(high, value);
    // Five decades: distant tokens are that far below near ones.
    return {log ? high * 1e-5f : 0.0f, std::max(high, 1e-30f), log};
}

// Edges along an axis, as many as have room.
void draw_edges(const AxisBins& bins, bool across, ImVec2 min, float cell_w, float cell_h, const Ui& ui) {
    ImDrawList* list = ImGui::GetWindowDrawList();
    const ImU32 color = ImGui::GetColorU32(ImGuiCol_TextDisabled);
    float free = -1e9f;
    for (int i = 0; i < bins.count(); ++i) {
        const std::string text = std::to_string(bins.edges[static_cast<std::size_t>(i)]);
        const ImVec2 size = ImGui::CalcTextSize(text.c_str());
        const float middle = (static_cast<float>(i) + 0.5f) * (across ? cell_w : cell_h);
        const float begin = middle - (across ? size.x : size.y) / 2;
        if (begin < free) continue;
        free = begin + (across ? size.x + ui.px(4) : size.y);
        if (across) {
            list->AddText({min.x + begin, min.y + cell_h * 0 + ui.px(2)}, color, text.c_str());
        } else {
            list->AddText({min.x - size.x - ui.px(4), min.y + begin}, color, text.c_str());
        }
    }
}

void draw_slice(Ui& ui, const Slice& slice, int number, ImVec2 at, ImVec2 size) {
    const OffsetKernel& kernel = ui.document.maps().kernel;
    const AxisBins &down = bins_of(kernel.bins, slice.down), &across = bins_of(kernel.bins, slice.across);
    const AxisBins& fixed = bins_of(kernel.bins, slice.fixed);
    int& chosen = ui.kernel.at[slice.fixed];
    chosen = std::clamp(chosen, 0, fixed.count() - 1);
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float line = ImGui::GetTextLineHeight();
    const int offset = fixed.edges[static_cast<std::size_t>(chosen)];
    const std::string axis = kAxisName[slice.fixed];
    const std::string title =
        offset == 0 ? "same " + axis.substr(0, axis.size() - 1) : axis + " " + std::to_string(offset) + " apart";
    list->AddText(at, ImGui::GetColorU32(ImGuiCol_Text), fitted(title, size.x).c_str());
    float widest = 0.0f;
    for (const int edge : down.edges) widest = std::max(widest, text_width(std::to_string(edge)));
    const float margin = widest + ui.px(8);
    const float left = at.x + margin, top = at.y + line + ui.px(4);
    const float width = std::max(ui.px(40), size.x - margin - ui.px(4));
    const float height = std::max(ui.px(40), size.y - 3.0f * line - ui.px(14) - ImGui::GetFrameHeight());
    const float cell_w = std::floor(std::min(width / static_cast<float>(across.count()), ui.px(44)));
    const float cell_h = std::floor(std::min(height / static_cast<float>(down.count()), ui.px(44)));
    const Scale scale = scale_of(kernel, ui.preferences.log_scale);
    const Colormap& map = colormap(ui.preferences.palette, ui.light());
    for (int y = 0; y < down.count(); ++y) {
        for (int x = 0; x < across.count(); ++x) {
            const float value = value_at(kernel, slice, y, x, chosen);
            const ImVec2 min = {left + cell_w * static_cast<float>(x), top + cell_h * static_cast<float>(y)};
            const ImVec2 max = {min.x + cell_w, min.y + cell_h};
            list->AddRectFilled(min, max,
                                to_u32(map[static_cast<std::size_t>(std::lround(255.0f * scale.place(value)))]));
            if (!ImGui::IsMouseHoveringRect(min, max) || !ImGui::IsWindowHovered()) continue;
            list->AddRect(min, max, ImGui::GetColorU32(accent_color(ui)));
            ImGui::SetTooltip("%d %s and %d %s away, %d %s:\n%s probability for a pair of tokens%s",
                              down.edges[static_cast<std::size_t>(y)], kAxisName[slice.down],
                              across.edges[static_cast<std::size_t>(x)], kAxisName[slice.across], offset,
                              kAxisName[slice.fixed], short_number(value).c_str(),
                              value == 0.0f ? " (never observed)" : "");
        }
    }
    const float bottom = top + cell_h * static_cast<float>(down.count());
    draw_edges(across, true, {left, bottom}, cell_w, cell_h, ui);
    draw_edges(down, false, {left, top}, cell_w, cell_h, ui);
    const std::string rows = kAxisName[slice.down], columns = kAxisName[slice.across];
    const std::string axes = fullest({"down: " + rows + ", across: " + columns + " apart",
                                      rows + " down, " + columns + " across", rows + " x " + columns},
                                     width);
    list->AddText({left, bottom + line + ui.px(3)}, ImGui::GetColorU32(ImGuiCol_TextDisabled), axes.c_str());
    ImGui::SetCursorScreenPos({left, bottom + 2.0f * line + ui.px(6)});
    ImGui::SetNextItemWidth(std::min(width, ui.px(150)));
    char format[48];
    std::snprintf(format, sizeof format, "%d %s apart", offset, kAxisName[slice.fixed]);
    ImGui::SliderInt(("##fixed" + std::to_string(number)).c_str(), &chosen, 0, fixed.count() - 1, format);
    tooltip("The offset along the axis that this slice leaves out.");
    ui.anchor("kernel.slider" + std::to_string(number));
}

}  // namespace

void draw_kernel(Ui& ui) {
    if (!ui.document.has_maps() || ui.document.maps().kernel.value.empty()) return;
    muted_wrapped("Mean attention from a token to one that far away, %s. %s: much.",
                  ui.document.name_of(ui.document.selected()).c_str(), ui.light() ? "Dark" : "Bright");
    const ImVec2 at = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float width = room.x / 3.0f;
    for (int i = 0; i < 3; ++i) {
        draw_slice(ui, kSlices[i], i, {at.x + width * static_cast<float>(i), at.y}, {width - ui.px(10), room.y});
    }
}

}  // namespace paro::viewer
