// What stands around the panels: menu, toolbar, messages, the welcome page, the question before quitting.
#include <algorithm>
#include <cstdio>

#include "app/app.h"
#include "document/files/utf8.h"
#include "imgui.h"
#include "imgui_internal.h"

namespace paro::viewer {

namespace {

// Bars under the menu take their place from the viewport's work area.
bool begin_bar(const char* name, float height) {
    constexpr ImGuiWindowFlags kFlags = ImGuiWindowFlags_NoDecoration | ImGuiWindowFlags_NoMove |
                                        ImGuiWindowFlags_NoSavedSettings | ImGuiWindowFlags_NoFocusOnAppearing;
    return ImGui::BeginViewportSideBar(name, ImGui::GetMainViewport(), ImGuiDir_Up, height, kFlags);
}

const char* overlay_name(Overlay overlay) {
    constexpr const char* kNames[] = {"Shade skipped blocks", "Outline the mask", "Mask only", "Off"};
    return kNames[static_cast<int>(overlay)];
}

std::string grid_name(const Grid& grid) {
    return std::to_string(grid.f) + " x " + std::to_string(grid.h) + " x " + std::to_string(grid.w);
}

// The file's name and the model's; `progress`: the width that a bar behind them takes.
void draw_names(Ui& ui, float progress) {
    const Document& document = ui.document;
    // What comes after the names keeps its place; they share what is left.
    const float after = ui.px(56 + 3 * 16 + 8) + text_width("tile") + text_width("edited") + progress;
    const float room = std::max(ui.px(80), ImGui::GetContentRegionAvail().x - after);
    const std::string file = fitted(utf8(document.path().filename()), room * 0.45f);
    ImGui::TextUnformatted(file.c_str());
    tooltip(utf8(document.path()).c_str());
    if (document.modified()) {
        ImGui::SameLine();
        ImGui::TextColored(warning_color(ui), "edited");
    }
    ImGui::SameLine(0.0f, ui.px(16));
    const ProfileModel& model = document.base().model;
    const std::string what = model.family + ", " + std::to_string(document.layers()) + " layers x " +
                             std::to_string(model.heads) + " heads, grid " + grid_name(document.grid());
    const std::string whole = what + " (frames x rows x columns)";
    const float left = room - text_width(file);
    muted("%s", text_width(whole) <= left ? whole.c_str() : fitted(what, left).c_str());
    tooltip(whole.c_str());
}

// A bar for what is being read, else for the heads whose own figures are being computed.
void draw_progress(Ui& ui, const Loading& loading, bool counting) {
    const Document& document = ui.document;
    if (loading.active) {
        ImGui::SameLine(0.0f, ui.px(16));
        const std::string what = fitted(loading.what, ui.px(200));
        ImGui::ProgressBar(static_cast<float>(loading.share), {ui.px(220), 0}, what.c_str());
    } else if (counting) {
        ImGui::SameLine(0.0f, ui.px(16));
        char text[64];
        std::snprintf(text, sizeof text, "%zu of %zu heads exact", document.overview().exact_count(),
                      document.head_count());
        ImGui::ProgressBar(
            static_cast<float>(document.overview().exact_count()) / static_cast<float>(document.head_count()),
            {ui.px(170), 0}, text);
        tooltip(
            "Figures of the other heads are interpolated from the four that the profile stores, until their maps "
            "are computed.");
    }
}

}  // namespace

void App::draw_file_menu() {
    Document& document = ui_.document;
    const bool open_file = document.has_profile();
    if (ImGui::MenuItem("Open...", "Ctrl+O")) ui_.dialog = DialogKind::open;
    if (ImGui::BeginMenu("Open recent", !preferences_.recent.empty())) {
        const std::vector<std::filesystem::path> recent = preferences_.recent;
        for (const auto& path : recent) {
            const float room = ImGui::GetMainViewport()->WorkSize.x * 0.6f;
            if (ImGui::MenuItem((fitted(utf8(path), room) + "##" + utf8(path)).c_str())) open(path);
        }
        ImGui::EndMenu();
    }
    const bool own_files = !document.store().remote();
    if (own_files && ImGui::MenuItem("Open run log...", nullptr, false, open_file)) ui_.dialog = DialogKind::run_log;
    if (ImGui::MenuItem("Compare with...", nullptr, false, open_file)) ui_.dialog = DialogKind::compare;
    ImGui::Separator();
    if (ImGui::MenuItem("Save", "Ctrl+S", false, open_file)) document.save();
    if (ImGui::MenuItem("Save as...", "Ctrl+Shift+S", false, open_file)) ui_.dialog = DialogKind::save_as;
    if (front_.hands_out()) {
        if (ImGui::MenuItem("Download", nullptr, false, open_file)) {
            front_.hand_out(document.text(), utf8(document.path().filename()));
        }
        ui_.anchor("menu.download");
    }
    if (ImGui::BeginMenu("Save picture of", open_file)) {
        draw_picture_menu();
        ImGui::EndMenu();
    }
    if (!front_.quits()) return;
    ImGui::Separator();
    if (ImGui::MenuItem("Quit", "Ctrl+Q")) ask_to_quit();
}

void App::draw_picture_menu() {
    for (const Panel& panel : panels()) {
        const bool shown = ui_.anchors.contains("panel." + std::string(panel.name));
        if (!ImGui::MenuItem(panel.title, nullptr, false, shown || ui_.maximised.empty())) continue;
        ui_.export_panel = panel.name;
        ui_.dialog = DialogKind::export_png;
    }
    if (ImGui::MenuItem("The whole window")) {
        ui_.export_panel.clear();
        ui_.dialog = DialogKind::export_png;
    }
}

void App::draw_view_menu() {
    if (ImGui::MenuItem("Dark", nullptr, preferences_.theme == Theme::dark)) preferences_.theme = Theme::dark;
    if (ImGui::MenuItem("Light", nullptr, preferences_.theme == Theme::light)) preferences_.theme = Theme::light;
    ImGui::Separator();
    for (const Overlay overlay : {Overlay::shade, Overlay::outline, Overlay::mask, Overlay::off}) {
        if (ImGui::MenuItem(overlay_name(overlay), "M", preferences_.overlay == overlay))
            preferences_.overlay = overlay;
    }
    ImGui::Separator();
    ImGui::MenuItem("Logarithmic colours", nullptr, &preferences_.log_scale);
    if (ImGui::MenuItem("Colour map", nullptr, preferences_.palette == Palette::dusk)) {
        preferences_.palette = Palette::dusk;
    }
    if (ImGui::MenuItem("Greys", nullptr, preferences_.palette == Palette::grey)) preferences_.palette = Palette::grey;
    ImGui::Separator();
    if (ImGui::BeginMenu("Size of text")) {
        for (const double scale : {0.0, 0.9, 1.0, 1.25, 1.5, 2.0}) {
            char label[32];
            std::snprintf(label, sizeof label, scale > 0.0 ? "%.0f %%" : "As the display", 100.0 * scale);
            if (ImGui::MenuItem(label, nullptr, preferences_.ui_scale == scale)) preferences_.ui_scale = scale;
        }
        ImGui::EndMenu();
    }
    if (ImGui::BeginMenu("One panel alone")) {
        for (const Panel& panel : panels()) {
            if (ImGui::MenuItem(panel.title, nullptr, ui_.maximised == panel.name)) ui_.maximised = panel.name;
        }
        ImGui::EndMenu();
    }
    if (ImGui::MenuItem("All panels in their places")) {
        layout_.reset = true;
        ui_.maximised.clear();
    }
}

void App::draw_menu() {
    if (!ImGui::BeginMainMenuBar()) return;
    Document& document = ui_.document;
    if (ImGui::BeginMenu("File")) {
        draw_file_menu();
        ImGui::EndMenu();
    }
    ui_.anchor("menu.file");
    if (ImGui::BeginMenu("Edit", document.has_profile())) {
        const std::string undo = document.history().undo_label(), redo = document.history().redo_label();
        if (ImGui::MenuItem(undo.empty() ? "Undo" : ("Undo " + undo).c_str(), "Ctrl+Z", false, !undo.empty())) {
            document.undo();
        }
        if (ImGui::MenuItem(redo.empty() ? "Redo" : ("Redo " + redo).c_str(), "Ctrl+Y", false, !redo.empty())) {
            document.redo();
        }
        ImGui::Separator();
        if (ImGui::MenuItem("Reset this head")) document.reset(Scope::head);
        if (ImGui::MenuItem("Reset everything")) document.reset(Scope::all);
        ImGui::EndMenu();
    }
    if (ImGui::BeginMenu("View")) {
        draw_view_menu();
        ImGui::EndMenu();
    }
    if (ImGui::BeginMenu("Help")) {
        if (ImGui::MenuItem("What am I looking at?", "F1", ui_.help)) ui_.help = !ui_.help;
        ImGui::EndMenu();
    }
    ImGui::EndMainMenuBar();
}

void App::draw_toolbar() {
    Document& document = ui_.document;
    const float height = ImGui::GetFrameHeight() + 2.0f * ImGui::GetStyle().WindowPadding.y;
    if (!begin_bar("##toolbar", height)) {
        ImGui::End();
        return;
    }
    const Loading loading = document.loading();
    const bool counting = document.has_profile() && document.overview().exact_count() < document.head_count();
    if (ImGui::Button("Open")) ui_.dialog = DialogKind::open;
    ui_.anchor("toolbar.open");
    tooltip(document.store().remote()
                ? "Opens a profile that ComfyUI has. Or drop a profile (.json) of yours on the window."
                : "Opens a profile (.json) or a capture (.capture.safetensors). Or drop one on the window.");
    if (document.has_profile()) {
        ImGui::SameLine();
        ImGui::BeginDisabled(!document.modified() || document.saving());
        if (ImGui::Button("Save")) document.save();
        ImGui::EndDisabled();
        ui_.anchor("toolbar.save");
        tooltip("Writes your edits to the profile: ComfyUI's next run uses them. Ctrl+S");
        ImGui::SameLine();
        ImGui::BeginDisabled(document.history().undo_label().empty());
        if (ImGui::Button("Undo")) document.undo();
        ImGui::EndDisabled();
        ui_.anchor("toolbar.undo");
        ImGui::SameLine(0.0f, ui_.px(16));
        ImGui::AlignTextToFramePadding();
        draw_names(ui_, loading.active ? ui_.px(236) : counting ? ui_.px(186) : 0.0f);
        ImGui::SameLine(0.0f, ui_.px(16));
        const char* tiles[] = {"64", "128"};
        int tile = document.tile() == 64 ? 0 : 1;
        ImGui::SetNextItemWidth(ui_.px(56));
        if (ImGui::Combo("tile", &tile, tiles, 2)) document.set_tile(tile == 0 ? 64 : 128);
        tooltip("Tokens in a block. The kernels compute or skip whole blocks of tile x tile pairs.");
    }
    draw_progress(ui_, loading, counting);
    ImGui::End();
}

void App::draw_messages() {
    Document& document = ui_.document;
    const std::vector<Message> messages = document.messages();
    const std::size_t first = messages.size() > 3 ? messages.size() - 3 : 0;
    for (std::size_t i = first; i < messages.size(); ++i) {
        const Message& message = messages[i];
        const std::string name = "##message" + std::to_string(i - first);
        const float width = ImGui::GetMainViewport()->WorkSize.x - ui_.px(240);
        const float text = ImGui::CalcTextSize(message.text.c_str(), nullptr, false, width).y;
        const float height = std::max(text, ImGui::GetFrameHeight()) + 2.0f * ImGui::GetStyle().WindowPadding.y;
        const bool light = ui_.light();
        const ImVec4 colors[] = {light ? ImVec4(0.86f, 0.92f, 0.98f, 1) : ImVec4(0.14f, 0.20f, 0.28f, 1),
                                 light ? ImVec4(1.0f, 0.94f, 0.80f, 1) : ImVec4(0.31f, 0.24f, 0.10f, 1),
                                 light ? ImVec4(1.0f, 0.87f, 0.85f, 1) : ImVec4(0.38f, 0.14f, 0.13f, 1)};
        ImGui::PushStyleColor(ImGuiCol_WindowBg, colors[static_cast<int>(message.kind)]);
        if (begin_bar(name.c_str(), height)) {
            ImGui::PushTextWrapPos(width);
            ImGui::TextUnformatted(message.text.c_str());
            ImGui::PopTextWrapPos();
            ImGui::SameLine(ImGui::GetWindowWidth() - ui_.px(message.offers_save_as ? 180 : 90));
            if (message.offers_save_as && document.has_profile()) {
                if (ImGui::Button("Save as...")) ui_.dialog = DialogKind::save_as;
                ui_.anchor("message.save_as");
                ImGui::SameLine();
            }
            if (ImGui::Button("Dismiss")) document.dismiss(message.id);
            ui_.anchor("message.dismiss");
        }
        ImGui::End();
        ImGui::PopStyleColor();
    }
}

void App::draw_welcome() {
    const ImGuiViewport* viewport = ImGui::GetMainViewport();
    ImGui::SetNextWindowPos(viewport->WorkPos);
    ImGui::SetNextWindowSize(viewport->WorkSize);
    constexpr ImGuiWindowFlags kFlags = ImGuiWindowFlags_NoTitleBar | ImGuiWindowFlags_NoResize |
                                        ImGuiWindowFlags_NoCollapse | ImGuiWindowFlags_NoMove |
                                        ImGuiWindowFlags_NoSavedSettings | ImGuiWindowFlags_NoBringToFrontOnFocus |
                                        ImGuiWindowFlags_NoBackground;
    if (ImGui::Begin("##welcome", nullptr, kFlags)) {
        const Loading loading = ui_.document.loading();
        const float margin = std::min(ui_.px(60), viewport->WorkSize.x * 0.05f);
        const float width = viewport->WorkSize.x - 2.0f * margin;
        ImGui::SetCursorPos({margin, margin});
        ImGui::BeginGroup();
        ImGui::PushTextWrapPos(margin + width);
        ImGui::PushFont(nullptr, 28.0f);
        ImGui::TextUnformatted("PARO Viewer");
        ImGui::PopFont();
        ImGui::Spacing();
        if (loading.active) {
            fitted_text(utf8(loading.path), width);
            const float bar = std::min(ui_.px(420), width);
            ImGui::ProgressBar(static_cast<float>(loading.share), {bar, 0}, fitted(loading.what, bar * 0.9f).c_str());
        } else {
            ImGui::TextUnformatted(
                "Shows what each attention head of a model looks at, which blocks are computed, and what is skipped.");
            ImGui::TextUnformatted(
                ui_.document.store().remote()
                    ? "Drop a profile (.json) here, or open one that ComfyUI has."
                    : "Drop a profile (.json) or a capture (.capture.safetensors) here, or open one.\n"
                      "ComfyUI keeps them in models/paro.");
            ImGui::Spacing();
            if (ImGui::Button("Open...")) ui_.dialog = DialogKind::open;
            ui_.anchor("welcome.open");
            ImGui::Spacing();
            if (!preferences_.recent.empty()) muted("Recent");
            const std::vector<std::filesystem::path> recent = preferences_.recent;
            for (std::size_t i = 0; i < recent.size(); ++i) {
                const std::string name = utf8(recent[i]);
                if (ImGui::TextLink((fitted(name, width) + "##" + name).c_str())) open(recent[i]);
                tooltip(name.c_str());
                ui_.anchor("recent." + std::to_string(i));
            }
        }
        ImGui::PopTextWrapPos();
        ImGui::EndGroup();
    }
    ImGui::End();
}

void App::draw_quit_question() {
    // A save that was on its way has arrived.
    if (ask_quit_ && !ui_.document.modified()) quit_ = true;
    if (ask_quit_ && !ImGui::IsPopupOpen("Leave?")) ImGui::OpenPopup("Leave?");
    if (!ImGui::BeginPopupModal("Leave?", nullptr, ImGuiWindowFlags_AlwaysAutoResize)) return;
    const std::string name = fitted(utf8(ui_.document.path().filename()), ui_.px(420));
    ImGui::Text("%s has edits that are not saved.", name.c_str());
    ImGui::Spacing();
    if (ImGui::Button("Stay")) {
        ask_quit_ = false;
        ImGui::CloseCurrentPopup();
    }
    ImGui::SameLine();
    if (ImGui::Button("Leave without saving")) quit_ = true;
    ui_.anchor("quit.leave");
    ImGui::EndPopup();
}

}  // namespace paro::viewer
