#include "app/app.h"

#include <algorithm>
#include <chrono>

#include "app/script.h"
#include "app/theme.h"
#include "document/files/utf8.h"
#include "imgui.h"
#include "imgui_internal.h"
#include "implot.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

const std::vector<Panel>& panels() {
    static const std::vector<Panel> all = {
        {"overview", "Heads", draw_overview},     {"head", "One head, six orders", draw_head},
        {"density", "Density", draw_density},     {"profile", "Profile", draw_profile},
        {"groups", "Timesteps", draw_groups},     {"curves", "Curves", draw_curves},
        {"kernel", "Offset kernel", draw_kernel}, {"ran", "What ran", draw_ran},
    };
    return all;
}

void Ui::anchor(std::string_view name) { anchor(name, ImGui::GetItemRectMin(), ImGui::GetItemRectMax()); }

void Ui::anchor(std::string_view name, ImVec2 min, ImVec2 max) { anchors[std::string(name)] = {min, max}; }

Style Ui::style() const {
    Style style;
    style.overlay = preferences.overlay;
    style.palette = preferences.palette;
    style.light = light();
    if (document.has_maps()) style.scale = document.maps().scale;
    style.scale.log = preferences.log_scale;
    if (!preferences.log_scale) style.scale.low = 0.0f;
    return style;
}

std::uint32_t Ui::budget(const BlockRanking& ranking, double density) {
    return static_cast<std::uint32_t>(std::max<std::int64_t>(1, ranking.budget(density)));
}

constexpr const char* kLayout = "layout.ini";

App::App(Screen& screen, Front& front, Document& document)
    : screen_(screen),
      front_(front),
      preferences_(parse_preferences(front.setting(kPreferencesName))),
      kept_(preferences_),
      ui_(document, preferences_, textures_) {
    ImGuiIO& io = ImGui::GetIO();
    io.ConfigFlags |= ImGuiConfigFlags_DockingEnable;
    io.ConfigWindowsMoveFromTitleBarOnly = true;
    io.IniFilename = nullptr;
    if (const std::string layout = front_.setting(kLayout); !layout.empty()) {
        ImGui::LoadIniSettingsFromMemory(layout.data(), layout.size());
    }
    load_font();
    screen_.on_drop = [this](const std::vector<std::string>& paths) {
        for (const std::string& path : paths) open(path_of(path));
    };
}

App::~App() {
    keep_preferences();
    keep(kLayout, ImGui::SaveIniSettingsToMemory());
}

void App::open(const std::filesystem::path& path) {
    if (kind_of(path) == FileKind::run_log) {
        ui_.document.open_run_log(path);
        return;
    }
    ui_.head = {};
    ui_.document.open(path);
    preferences_.remember(path);
}

void App::keep_preferences() {
    if (ImGuiIO& io = ImGui::GetIO(); io.WantSaveIniSettings) {
        io.WantSaveIniSettings = false;
        keep(kLayout, ImGui::SaveIniSettingsToMemory());
    }
    if (preferences_ == kept_) return;
    kept_ = preferences_;
    keep(kPreferencesName, dump_preferences(preferences_));
}

void App::keep(const std::string& name, const std::string& text) {
    try {
        front_.keep(name, text);
    } catch (const std::exception& error) {
        ui_.document.tell(Message::Kind::warning, std::string("Settings not kept: ") + error.what());
    }
}

bool App::settled() const { return ui_.document.settled() && !ui_.document.loading().active; }

bool App::busy(const Script* script) const { return !settled() || script != nullptr || seconds_now() < busy_until_; }

void App::follow_look() {
    const float automatic = preferences_.ui_scale > 0.0 ? static_cast<float>(preferences_.ui_scale) : screen_.scale();
    const float wanted = look_.forced_scale > 0.0f ? look_.forced_scale : automatic;
    if (wanted != look_.scale || preferences_.theme != look_.theme) {
        apply_theme(preferences_.theme, wanted);
        // Panels keep their shares of the window when everything in them grows.
        if (look_.scale > 0.0f && wanted != look_.scale) layout_.rebuild_in = 3;
        look_.scale = ui_.scale = wanted;
        look_.theme = preferences_.theme;
        const ImVec4& background = ImGui::GetStyle().Colors[ImGuiCol_WindowBg];
        screen_.background[0] = background.x;
        screen_.background[1] = background.y;
        screen_.background[2] = background.z;
    }
}

bool App::frame(Script* script) {
    if (!screen_.begin_frame(busy(script) ? 0.0 : 0.25)) {
        ask_to_quit();
        if (quit_) return false;
    }
    if (script != nullptr) script->step(*this);
    follow_look();
    find_missing_letters();
    const double now = seconds_now();
    ui_.document.update(now, now >= busy_until_ || script != nullptr);
    ImGui::NewFrame();
    const ImGuiIO& io = ImGui::GetIO();
    // Input keeps the frames coming for a while, so that hovers and drags are smooth and nothing waits in the queue.
    const bool queued = !ImGui::GetCurrentContext()->InputEventsQueue.empty();
    if (queued || ImGui::IsAnyMouseDown() || io.MouseDelta.x != 0.0f || io.MouseDelta.y != 0.0f) {
        busy_until_ = now + 0.5;
    }
    ui_.anchors.clear();
    draw();
    ImGui::Render();
    screen_.end_frame();
    textures_.collect();
    if (!export_path_.empty()) export_picture();
    keep_preferences();
    update_title();
    return !quit_;
}

void App::update_title() {
    const Document& document = ui_.document;
    std::string title = "PARO Viewer";
    if (document.has_profile()) {
        title = utf8(document.path().filename()) + (document.modified() ? " (edited)" : "") + " - " + title;
    }
    if (title == title_) return;
    title_ = title;
    screen_.set_title(title_);
}

Image App::picture(const std::string& panel) {
    const Image whole = screen_.pixels();
    if (panel.empty()) return whole;
    const auto found = ui_.anchors.find("panel." + panel);
    require(found != ui_.anchors.end(), "panel", "must be one that the window shows now", panel);
    const Rect& rect = found->second;
    const ImVec2 unit = ImGui::GetIO().DisplayFramebufferScale;
    const float sx = unit.x > 0 ? unit.x : 1.0f, sy = unit.y > 0 ? unit.y : 1.0f;
    return crop(whole, static_cast<int>(rect.min.x * sx), static_cast<int>(rect.min.y * sy),
                static_cast<int>((rect.max.x - rect.min.x) * sx), static_cast<int>((rect.max.y - rect.min.y) * sy));
}

void App::export_picture() {
    const std::filesystem::path path = std::move(export_path_);
    export_path_.clear();
    try {
        ui_.document.tell(Message::Kind::info, front_.save_picture(picture(ui_.export_panel), path));
    } catch (const std::exception& error) {
        ui_.document.tell(Message::Kind::error, std::string("No picture: ") + error.what());
    }
}

void App::ask_to_quit() {
    if (ui_.document.modified() && !ask_quit_) {
        ask_quit_ = true;
    } else {
        quit_ = true;
    }
}

void App::move_selection(int dx, int dy) {
    Document& document = ui_.document;
    document.select(move_in(ui_.overview.list, document.selected(), dx, dy, ui_.overview.columns));
    ui_.overview.scroll_to_selected = true;
}

void App::shortcuts() {
    Document& document = ui_.document;
    const ImGuiIO& io = ImGui::GetIO();
    if (ImGui::IsKeyPressed(ImGuiKey_F1, false)) ui_.help = !ui_.help;
    if (ImGui::IsKeyPressed(ImGuiKey_Escape, false) && !io.WantTextInput) ui_.maximised.clear();
    if (ImGui::IsPopupOpen(nullptr, ImGuiPopupFlags_AnyPopupId | ImGuiPopupFlags_AnyPopupLevel)) return;
    // Not Shortcut(): its routes need the modifier a frame before the key, and quick or remote typing brings both at
    // once.
    const auto chord = [](ImGuiKeyChord keys) { return ImGui::IsKeyChordPressed(keys); };
    if (chord(ImGuiMod_Ctrl | ImGuiKey_O)) ui_.dialog = DialogKind::open;
    if (chord(ImGuiMod_Ctrl | ImGuiKey_Q) && front_.quits()) ask_to_quit();
    if (!document.has_profile()) return;
    if (chord(ImGuiMod_Ctrl | ImGuiKey_S)) document.save();
    if (chord(ImGuiMod_Ctrl | ImGuiMod_Shift | ImGuiKey_S)) ui_.dialog = DialogKind::save_as;
    if (io.WantTextInput) return;
    if (chord(ImGuiMod_Ctrl | ImGuiKey_Z)) document.undo();
    if (chord(ImGuiMod_Ctrl | ImGuiKey_Y) || chord(ImGuiMod_Ctrl | ImGuiMod_Shift | ImGuiKey_Z)) document.redo();
    if (io.KeyCtrl || io.KeyAlt) return;
    if (ImGui::IsKeyPressed(ImGuiKey_RightArrow)) move_selection(1, 0);
    if (ImGui::IsKeyPressed(ImGuiKey_LeftArrow)) move_selection(-1, 0);
    if (ImGui::IsKeyPressed(ImGuiKey_DownArrow)) move_selection(0, 1);
    if (ImGui::IsKeyPressed(ImGuiKey_UpArrow)) move_selection(0, -1);
    if (ImGui::IsKeyPressed(ImGuiKey_G, false)) {
        document.set_group((document.group() + 1) % document.base().timestep_groups.size());
    }
    if (ImGui::IsKeyPressed(ImGuiKey_L, false)) {
        document.set_locked(Scope::head, !document.heads()[document.selected()].locked);
    }
    if (ImGui::IsKeyPressed(ImGuiKey_M, false)) {
        preferences_.overlay = static_cast<Overlay>((static_cast<int>(preferences_.overlay) + 1) % 4);
    }
    const bool down = ImGui::IsKeyPressed(ImGuiKey_LeftBracket), up = ImGui::IsKeyPressed(ImGuiKey_RightBracket);
    if (down || up) {
        const int step = step_of_density(document.density(document.selected())) + (up ? 2 : -2);
        document.set_density(Scope::head, density_of_step(std::clamp(step, 1, kDensitySteps)));
    }
}

void App::build_layout(unsigned dock) {
    ImGui::DockBuilderRemoveNode(dock);
    ImGui::DockBuilderAddNode(dock, ImGuiDockNodeFlags_DockSpace);
    ImGui::DockBuilderSetNodeSize(dock, ImGui::GetMainViewport()->WorkSize);
    unsigned centre = dock, bottom = 0, middle_right = 0, lower_right = 0;
    const unsigned left = ImGui::DockBuilderSplitNode(centre, ImGuiDir_Left, 0.215f, nullptr, &centre);
    unsigned right = ImGui::DockBuilderSplitNode(centre, ImGuiDir_Right, 0.325f, nullptr, &centre);
    // Tabs, names and axes take the same room whatever is left: in a small window the plots get a larger share.
    const float share = std::clamp(ui_.px(195) / ImGui::GetMainViewport()->WorkSize.y, 0.30f, 0.36f);
    bottom = ImGui::DockBuilderSplitNode(centre, ImGuiDir_Down, share, nullptr, &centre);
    lower_right = ImGui::DockBuilderSplitNode(right, ImGuiDir_Down, 0.57f, nullptr, &right);
    middle_right = ImGui::DockBuilderSplitNode(lower_right, ImGuiDir_Up, 0.385f, nullptr, &lower_right);
    const std::map<std::string, unsigned> place = {
        {"overview", left}, {"head", centre}, {"density", right},       {"curves", bottom},
        {"kernel", bottom}, {"ran", bottom},  {"groups", middle_right}, {"profile", lower_right}};
    // The last one docked comes to the front of its tabs.
    for (auto panel = panels().rbegin(); panel != panels().rend(); ++panel) {
        const std::string title = std::string(panel->title) + "###" + panel->name;
        ImGui::DockBuilderDockWindow(title.c_str(), place.at(panel->name));
    }
    ImGui::DockBuilderFinish(dock);
}

void App::draw_panels() {
    const ImGuiViewport* viewport = ImGui::GetMainViewport();
    if (!ui_.maximised.empty()) {
        for (const Panel& panel : panels()) {
            if (ui_.maximised != panel.name) continue;
            ImGui::SetNextWindowPos(viewport->WorkPos);
            ImGui::SetNextWindowSize(viewport->WorkSize);
            constexpr ImGuiWindowFlags kFlags = ImGuiWindowFlags_NoTitleBar | ImGuiWindowFlags_NoResize |
                                                ImGuiWindowFlags_NoCollapse | ImGuiWindowFlags_NoMove |
                                                ImGuiWindowFlags_NoSavedSettings | ImGuiWindowFlags_NoBackground;
            if (ImGui::Begin((std::string(panel.title) + "###whole_" + panel.name).c_str(), nullptr, kFlags)) {
                ImGui::TextUnformatted(panel.title);
                ImGui::SameLine();
                if (ImGui::SmallButton("Back (Esc)")) ui_.maximised.clear();
                ImGui::Separator();
                panel.draw(ui_);
                ui_.anchor("panel." + std::string(panel.name), viewport->WorkPos,
                           {viewport->WorkPos.x + viewport->WorkSize.x, viewport->WorkPos.y + viewport->WorkSize.y});
            }
            ImGui::End();
        }
        layout_.front_in = 3;
        return;
    }
    const ImGuiID dock = ImGui::GetID("dock");
    const bool fresh = ImGui::DockBuilderGetNode(dock) == nullptr;
    // The window's size follows its scale a frame later.
    if (layout_.rebuild_in > 0 && --layout_.rebuild_in == 0) layout_.reset = true;
    constexpr auto kNoMenu = static_cast<ImGuiDockNodeFlags>(ImGuiDockNodeFlags_NoWindowMenuButton);
    ImGui::DockSpaceOverViewport(dock, viewport,
                                 ImGuiDockNodeFlags_NoUndocking | ImGuiDockNodeFlags_PassthruCentralNode | kNoMenu);
    if (fresh || layout_.reset) {
        build_layout(dock);
        layout_.front = {"Curves###curves"};
        layout_.front_in = 2;
    }
    layout_.reset = false;
    // Windows that have just been docked push each other to the front; the first tab shall be there.
    if (layout_.front_in > 0 && --layout_.front_in == 0) {
        for (const std::string& title : layout_.front) ImGui::SetWindowFocus(title.c_str());
    }
    if (layout_.front_in == 0) layout_.front.clear();
    for (const Panel& panel : panels()) {
        if (ImGui::Begin((std::string(panel.title) + "###" + panel.name).c_str(), nullptr,
                         ImGuiWindowFlags_NoBackground)) {
            const ImVec2 min = ImGui::GetWindowPos(), size = ImGui::GetWindowSize();
            ui_.anchor("panel." + std::string(panel.name), min, {min.x + size.x, min.y + size.y});
            panel.draw(ui_);
            if (layout_.front_in == 0) layout_.front.push_back(std::string(panel.title) + "###" + panel.name);
        }
        const ImGuiWindow* window = ImGui::GetCurrentWindow();
        if (window->DockNode != nullptr) {
            const ImRect tab = window->DC.DockTabItemRect;
            ui_.anchor("tab." + std::string(panel.name), tab.Min, tab.Max);
        }
        ImGui::End();
    }
}

void App::draw() {
    draw_menu();
    draw_toolbar();
    draw_messages();
    if (ui_.document.has_profile()) {
        draw_panels();
    } else {
        draw_welcome();
    }
    if (ui_.help) draw_help(ui_);
    draw_dialogs(ui_, [this](DialogKind kind, const std::filesystem::path& path) {
        if (kind == DialogKind::open || kind == DialogKind::run_log) open(path);
        if (kind == DialogKind::compare) {
            ui_.document.open_comparison(path);
            ui_.show_comparison = true;
        }
        if (kind == DialogKind::save_as) {
            ui_.document.save_as(path);
            preferences_.remember(path);
        }
        if (kind == DialogKind::export_png) export_path_ = path;
    });
    draw_quit_question();
    for (const auto& [at, text] : ui_.notes) {
        const ImVec2 size = ImGui::CalcTextSize(text.c_str()), edge = {ui_.px(8), ui_.px(8)};
        ImGui::GetForegroundDrawList()->AddRectFilled({at.x - edge.x, at.y - edge.y},
                                                      {at.x + size.x + edge.x, at.y + size.y + edge.y},
                                                      ImGui::GetColorU32(ImGuiCol_PopupBg));
        ImGui::GetForegroundDrawList()->AddText(at, ImGui::GetColorU32(ImGuiCol_Text), text.c_str());
    }
    shortcuts();
}

}  // namespace paro::viewer
