// F1: what is seen here, in a page.
#include <algorithm>

#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

void paragraph(const char* title, const char* text) {
    ImGui::SeparatorText(title);
    ImGui::TextWrapped("%s", text);
}

void draw_keys() {
    const char* keys[][2] = {
        {"arrows", "another head"},
        {"[ and ]", "density of the selected head, one percent down or up"},
        {"M", "how the mask is drawn: shaded, outlined, alone, not"},
        {"G", "next timestep group"},
        {"L", "lock or unlock the head's order"},
        {"wheel, drag", "zoom and pan all six maps; double click shows one alone"},
        {"Ctrl+Z, Ctrl+Y", "undo, redo"},
        {"Ctrl+S, Ctrl+Shift+S", "save, save as"},
        {"Ctrl+O", "open"},
        {"Esc", "back to all panels"},
    };
    ImGui::SeparatorText("Keys");
    if (!ImGui::BeginTable("keys", 2, ImGuiTableFlags_SizingFixedFit)) return;
    ImGui::TableSetupColumn("key");
    ImGui::TableSetupColumn("what", ImGuiTableColumnFlags_WidthStretch);
    for (const auto& key : keys) {
        ImGui::TableNextRow();
        ImGui::TableNextColumn();
        ImGui::TextUnformatted(key[0]);
        ImGui::TableNextColumn();
        ImGui::TextWrapped("%s", key[1]);
    }
    ImGui::EndTable();
}

}  // namespace

void draw_help(Ui& ui) {
    const ImVec2 window = ImGui::GetMainViewport()->WorkSize, at = ImGui::GetMainViewport()->WorkPos;
    const ImVec2 size = {std::min(ui.px(680), window.x * 0.92f), std::min(ui.px(600), window.y * 0.96f)};
    ImGui::SetNextWindowSize(size, ImGuiCond_Always);
    ImGui::SetNextWindowPos({at.x + (window.x - size.x) / 2, at.y + (window.y - size.y) / 2}, ImGuiCond_Always);
    constexpr ImGuiWindowFlags kFlags =
        ImGuiWindowFlags_NoDocking | ImGuiWindowFlags_NoCollapse | ImGuiWindowFlags_NoSavedSettings;
    if (ImGui::Begin("What am I looking at?", &ui.help, kFlags)) {
        ui.anchor("help", at, {at.x + size.x, at.y + size.y});
        paragraph(
            "A map",
            "A video or image model cuts its picture into patches: F frames of H rows and W columns. In attention, "
            "every patch (a query, down) looks at every other (a key, across). A map shows how much, block by block: "
            "dark is little, bright is much (the other way round in the light theme).");
        paragraph(
            "Six orders",
            "The patches have to stand in a row. FHW runs through frames slowest and columns fastest, as models do. "
            "Most heads look along one axis, and in the right order what they look at gathers in few blocks. The order "
            "that keeps the most attention is chosen; the paper's score (smaller is better) is shown beside it.");
        paragraph(
            "The mask and its density",
            "Only the brightest blocks are computed; the greyed ones are skipped. Density is the share that is "
            "computed: 30 % means about a third of the work. 'Attention kept' is the share of the map's mass in the "
            "computed blocks. Text blocks around the map are always computed.");
        paragraph(
            "Whose density counts",
            "A head's own density if it has one, then the PARO Attention node's, then the profile's default. Save, and "
            "the next run in ComfyUI uses your orders and densities.");
        paragraph(
            "Exact and rebuilt",
            "A profile stores for each head how attention falls with distance (the offset kernel), and maps are "
            "rebuilt "
            "from it. A capture beside it holds sampled rows of some heads exactly: tick 'exact rows' to see them.");
        draw_keys();
    }
    ImGui::End();
}

}  // namespace paro::viewer
