// Timestep groups: which part of the sampling the shown maps belong to.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "app/ui.h"
#include "imgui.h"

namespace paro::viewer {

void draw_groups(Ui& ui) {
    Document& document = ui.document;
    const auto& groups = document.base().timestep_groups;
    ImGui::TextWrapped(groups.size() > 1
                           ? "Heads look elsewhere early than late, so each group of timesteps has maps of its "
                             "own. The order is shared. Click one, or press G."
                           : "This profile has one group: the same maps serve all timesteps.");
    const ImVec2 at = ImGui::GetCursorScreenPos();
    const float width = ImGui::GetContentRegionAvail().x, height = ui.px(54);
    const double first = groups.front().sigma_max, last = groups.back().sigma_min;
    const auto place = [&](double sigma) {
        return at.x + width * static_cast<float>((first - sigma) / std::max(1e-12, first - last));
    };
    ImDrawList* list = ImGui::GetWindowDrawList();
    for (std::size_t i = 0; i < groups.size(); ++i) {
        const float left = place(groups[i].sigma_max), right = place(groups[i].sigma_min);
        ImGui::SetCursorScreenPos({left, at.y});
        if (ImGui::InvisibleButton(("group" + std::to_string(i)).c_str(), {std::max(8.0f, right - left), height})) {
            document.set_group(i);
        }
        ui.anchor("group." + std::to_string(i));
        const bool chosen = document.group() == i;
        const ImU32 fill = ImGui::GetColorU32(chosen                   ? ImGuiCol_HeaderActive
                                              : ImGui::IsItemHovered() ? ImGuiCol_HeaderHovered
                                                                       : ImGuiCol_FrameBg);
        list->AddRectFilled({left + 1, at.y}, {right - 1, at.y + height}, fill, ui.px(4));
        char text[96];
        std::snprintf(text, sizeof text, "group %zu%s", i + 1, chosen ? " (shown)" : "");
        list->AddText({left + ui.px(8), at.y + ui.px(6)}, ImGui::GetColorU32(ImGuiCol_Text), text);
        std::snprintf(text, sizeof text, "sigma %.3g to %.3g", groups[i].sigma_max, groups[i].sigma_min);
        list->AddText({left + ui.px(8), at.y + ui.px(6) + ImGui::GetTextLineHeight()},
                      ImGui::GetColorU32(ImGuiCol_TextDisabled), text);
    }
    std::set<double> sigmas;
    if (const Run* run = document.run()) {
        for (const RunLine& line : run->lines) sigmas.insert(line.sigma);
    }
    for (const double sigma : sigmas) {
        const float x = std::clamp(place(sigma), at.x, at.x + width);
        list->AddTriangleFilled({x, at.y + height + ui.px(2)}, {x - ui.px(4), at.y + height + ui.px(10)},
                                {x + ui.px(4), at.y + height + ui.px(10)}, ImGui::GetColorU32(ImGuiCol_TextDisabled));
    }
    ImGui::SetCursorScreenPos({at.x, at.y + height + ui.px(12)});
    if (!sigmas.empty()) {
        muted("Marks: the %zu steps of the logged run. Early (much noise) is left.", sigmas.size());
    } else {
        muted("Early steps (much noise) are left, late ones right.");
    }
}

}  // namespace paro::viewer
