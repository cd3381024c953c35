// Timestep groups: which part of the sampling the shown maps belong to.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

void draw_groups(Ui& ui) {
    Document& document = ui.document;
    const auto& groups = document.base().timestep_groups;
    ImGui::TextWrapped(groups.size() > 1 ? "Early and late steps have their own maps."
                                         : "The same maps serve all timesteps.");
    const ImVec2 at = ImGui::GetCursorScreenPos();
    const float width = ImGui::GetContentRegionAvail().x, height = 2.0f * ImGui::GetTextLineHeight() + ui.px(12);
    const float part = width / static_cast<float>(groups.size());
    // Every group takes the same room, whatever its range of sigma: models spend their steps unevenly.
    const auto place = [&](double sigma) {
        std::size_t i = 0;
        while (i + 1 < groups.size() && sigma <= groups[i].sigma_min) ++i;
        const double range = std::max(1e-12, groups[i].sigma_max - groups[i].sigma_min);
        const double share = std::clamp((groups[i].sigma_max - sigma) / range, 0.0, 1.0);
        return at.x + part * (static_cast<float>(i) + static_cast<float>(share));
    };
    ImDrawList* list = ImGui::GetWindowDrawList();
    for (std::size_t i = 0; i < groups.size(); ++i) {
        const float left = at.x + part * static_cast<float>(i), right = left + part;
        ImGui::SetCursorScreenPos({left, at.y});
        if (ImGui::InvisibleButton(("group" + std::to_string(i)).c_str(), {part, height})) {
            document.set_group(i);
        }
        ui.anchor("group." + std::to_string(i));
        const bool chosen = document.group() == i;
        const ImU32 fill = ImGui::GetColorU32(chosen                   ? ImGuiCol_HeaderActive
                                              : ImGui::IsItemHovered() ? ImGuiCol_HeaderHovered
                                                                       : ImGuiCol_FrameBg);
        list->AddRectFilled({left + 1, at.y}, {right - 1, at.y + height}, fill, ui.px(4));
        char text[96];
        std::snprintf(text, sizeof text, "%s%s",
                      groups.size() == 1 ? "all steps"
                      : i == 0           ? "early steps"
                                         : "late steps",
                      chosen ? ", shown" : "");
        list->AddText({left + ui.px(8), at.y + ui.px(6)}, ImGui::GetColorU32(ImGuiCol_Text),
                      fitted(text, part - ui.px(12)).c_str());
        std::snprintf(text, sizeof text, "sigma %.3g to %.3g", groups[i].sigma_max, groups[i].sigma_min);
        list->AddText({left + ui.px(8), at.y + ui.px(6) + ImGui::GetTextLineHeight()},
                      ImGui::GetColorU32(ImGuiCol_TextDisabled), fitted(text, part - ui.px(12)).c_str());
    }
    std::set<double> sigmas;
    if (const Run* run = document.run()) {
        for (const RunLine& line : run->lines) sigmas.insert(line.sigma);
    }
    for (const double sigma : sigmas) {
        const float x = std::clamp(place(sigma), at.x + ui.px(4), at.x + std::max(width, ui.px(8)) - ui.px(4));
        list->AddTriangleFilled({x, at.y + height + ui.px(2)}, {x - ui.px(4), at.y + height + ui.px(10)},
                                {x + ui.px(4), at.y + height + ui.px(10)}, ImGui::GetColorU32(ImGuiCol_TextDisabled));
    }
    ImGui::SetCursorScreenPos({at.x, at.y + height + ui.px(12)});
    ImGui::Dummy({width, 0});
    if (!sigmas.empty()) muted_wrapped("marks: the %zu steps of the logged run. G: next group", sigmas.size());
}

}  // namespace paro::viewer
