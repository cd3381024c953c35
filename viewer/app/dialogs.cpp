// Choosing files: a small dialog of our own, the same on every platform and in tests.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>

#include "app/app.h"
#include "document/files/utf8.h"
#include "imgui.h"

namespace paro::viewer {

namespace fs = std::filesystem;

namespace {

struct FileDialog {
    const FileStore* store = nullptr;
    DialogKind kind = DialogKind::open;
    fs::path folder;
    char name[1024] = "";
    std::vector<Listed> entries;
    std::string problem;
    bool overwrite = false;
};

const char* title_of(DialogKind kind) {
    constexpr const char* kTitles[] = {"Open a profile or capture", "Save the profile as", "Compare with a profile",
                                       "Open a run log", "Save a picture"};
    return kTitles[static_cast<int>(kind)];
}

bool is_saving(DialogKind kind) { return kind == DialogKind::save_as || kind == DialogKind::export_png; }

bool fits(DialogKind kind, const fs::path& path) {
    const std::string name = utf8(path.filename());
    if (kind == DialogKind::run_log) return name.ends_with(".jsonl");
    if (kind == DialogKind::export_png) return name.ends_with(".png");
    const bool capture = name.ends_with(".safetensors") && kind == DialogKind::open;
    return name.ends_with(".json") || capture;
}

std::string shown_name(const Listed& entry) { return utf8(entry.path.filename()) + (entry.folder ? "/" : ""); }

void list_folder(FileDialog& dialog) {
    dialog.problem.clear();
    dialog.entries = dialog.store->list(dialog.folder, dialog.problem);
    std::erase_if(dialog.entries, [&](const Listed& entry) {
        return shown_name(entry).starts_with('.') || (!entry.folder && !fits(dialog.kind, entry.path));
    });
    std::ranges::sort(dialog.entries, [](const Listed& a, const Listed& b) {
        return a.folder != b.folder ? a.folder : shown_name(a) < shown_name(b);
    });
}

void set_name(FileDialog& dialog, const std::string& name) {
    std::snprintf(dialog.name, sizeof dialog.name, "%s", name.c_str());
}

void start(FileDialog& dialog, const Ui& ui, DialogKind kind) {
    dialog = {};
    dialog.kind = kind;
    dialog.store = &ui.document.store();
    std::error_code error;
    const bool folders = !dialog.store->remote();
    if (folders) {
        dialog.folder = fs::current_path(error);
        if (!ui.preferences.recent.empty()) dialog.folder = ui.preferences.recent.front().parent_path();
    }
    if (ui.document.has_profile()) {
        if (folders) dialog.folder = fs::absolute(ui.document.path(), error).parent_path();
        const std::string stem = utf8(ui.document.path().stem());
        if (kind == DialogKind::save_as) set_name(dialog, stem + "-edited.json");
        if (kind == DialogKind::export_png) {
            set_name(dialog, stem + '-' + (ui.export_panel.empty() ? "viewer" : ui.export_panel) + ".png");
        }
    }
    list_folder(dialog);
}

// The path that is named, or what is wrong with it.
fs::path named(FileDialog& dialog) {
    const bool folders = !dialog.store->remote();
    const fs::path given = path_of(dialog.name);
    fs::path path = given.is_absolute() || !folders ? given : dialog.folder / given;
    std::error_code error;
    if (folders && fs::is_directory(path, error)) {
        dialog.folder = path;
        set_name(dialog, "");
        list_folder(dialog);
        return {};
    }
    const auto there = [&] { return folders ? fs::exists(path, error) : dialog.store->stamp(path).exists; };
    if (is_saving(dialog.kind)) {
        const char* end = dialog.kind == DialogKind::save_as ? ".json" : ".png";
        if (path.extension() != end) path += end;
        if (there() && !dialog.overwrite) {
            dialog.problem = utf8(path.filename()) + " exists. Press again to replace it.";
            dialog.overwrite = true;
            return {};
        }
        return path;
    }
    if (!folders && path.extension() != ".json") path += ".json";
    if (!there()) {
        dialog.problem = utf8(path) + " does not exist.";
        return {};
    }
    return path;
}

void draw_entries(FileDialog& dialog, bool& chosen) {
    for (const Listed& entry : std::vector<Listed>(dialog.entries)) {
        const std::string name = shown_name(entry);
        // Two long names may be shown alike: what tells them apart is not shown, and the whole name is in the tip.
        const std::string shown = fitted(name, ImGui::GetContentRegionAvail().x);
        const bool pressed =
            ImGui::Selectable((shown + "###" + name).c_str(), false,
                              ImGuiSelectableFlags_NoAutoClosePopups | ImGuiSelectableFlags_AllowDoubleClick);
        if (shown != name) tooltip(name.c_str());
        if (!pressed) continue;
        if (entry.folder) {
            dialog.folder = entry.path;
            list_folder(dialog);
            return;
        }
        set_name(dialog, name);
        dialog.overwrite = false;
        chosen = ImGui::IsMouseDoubleClicked(ImGuiMouseButton_Left);
    }
}

// Where the files lie, and the way to the folder above.
void draw_place(FileDialog& dialog) {
    if (dialog.store->remote()) {
        ImGui::TextUnformatted(dialog.kind == DialogKind::export_png ? "Downloaded by the browser."
                                                                     : "Profiles that ComfyUI has.");
        return;
    }
    if (ImGui::Button("Up") && dialog.folder.has_parent_path()) {
        dialog.folder = dialog.folder.parent_path();
        list_folder(dialog);
    }
    ImGui::SameLine();
    fitted_text(utf8(dialog.folder), ImGui::GetContentRegionAvail().x);
}

}  // namespace

void draw_dialogs(Ui& ui, const std::function<void(DialogKind, const fs::path&)>& done) {
    static FileDialog dialog;
    constexpr const char* kPopup = "###file_dialog";
    if (ui.dialog) {
        start(dialog, ui, *ui.dialog);
        ui.dialog.reset();
        ImGui::OpenPopup(kPopup);
    }
    const ImVec2 window = ImGui::GetMainViewport()->WorkSize;
    ImGui::SetNextWindowSize({std::min(ui.px(640), window.x * 0.9f), std::min(ui.px(440), window.y * 0.85f)},
                             ImGuiCond_Appearing);
    const std::string title = std::string(title_of(dialog.kind)) + kPopup;
    if (!ImGui::BeginPopupModal(title.c_str())) return;
    draw_place(dialog);
    bool chosen = false;
    const float problem =
        ImGui::CalcTextSize(dialog.problem.c_str(), nullptr, false, ImGui::GetContentRegionAvail().x).y;
    const float below = 2.0f * ImGui::GetFrameHeightWithSpacing() + ImGui::GetStyle().ItemSpacing.y +
                        std::max(problem, ImGui::GetTextLineHeight());
    if (ImGui::BeginChild("entries", {0, -below}, ImGuiChildFlags_Borders)) draw_entries(dialog, chosen);
    ImGui::EndChild();
    if (ImGui::IsWindowAppearing()) ImGui::SetKeyboardFocusHere();
    ImGui::SetNextItemWidth(-1);
    if (ImGui::InputTextWithHint("##name", "name or whole path", dialog.name, sizeof dialog.name,
                                 ImGuiInputTextFlags_EnterReturnsTrue)) {
        chosen = true;
    }
    ui.anchor("dialog.name");
    wrapped(warning_color(ui), "%s", dialog.problem.c_str());
    const char* action = is_saving(dialog.kind) ? (dialog.overwrite ? "Replace" : "Save") : "Open";
    chosen = ImGui::Button(action) || chosen;
    ui.anchor("dialog.ok");
    ImGui::SameLine();
    if (ImGui::Button("Cancel") || ImGui::IsKeyPressed(ImGuiKey_Escape)) ImGui::CloseCurrentPopup();
    ui.anchor("dialog.cancel");
    if (chosen && dialog.name[0] != '\0') {
        const fs::path path = named(dialog);
        if (!path.empty()) {
            done(dialog.kind, path);
            ImGui::CloseCurrentPopup();
        }
    }
    ImGui::EndPopup();
}

}  // namespace paro::viewer
