// The program around the panels: menu, dock layout, messages, dialogs, shortcuts, and the loop over frames.
#pragma once

#include <memory>
#include <string>

#include "app/front.h"
#include "app/screen.h"
#include "panels/ui.h"

namespace paro::viewer {

class Script;

class App {
   public:
    // screen must have been started.
    App(Screen& screen, Front& front, Document& document);
    ~App();

    // One frame. False when the user closes the window.
    bool frame(Script* script);
    Ui& ui() { return ui_; }
    // Everything that was asked for is drawn.
    bool settled() const;
    // The next frame changes something without new input: work goes on, or the mouse has just moved.
    bool busy(const Script* script) const;
    // The last frame, or the part of it that a panel takes. Throws Error for a panel that is not shown.
    Image picture(const std::string& panel = "");
    // A profile, a capture or a run log, by its name.
    void open(const std::filesystem::path& path);
    void set_scale(float scale) { look_.forced_scale = scale; }
    void ask_to_quit();
    Screen& screen() { return screen_; }

   private:
    void draw();
    void draw_menu();
    void draw_file_menu();
    void draw_view_menu();
    void draw_toolbar();
    void draw_messages();
    void draw_welcome();
    void draw_quit_question();
    void draw_panels();
    void build_layout(unsigned dock);
    void shortcuts();
    void move_selection(int dx, int dy);
    void keep_preferences();
    void keep(const std::string& name, const std::string& text);
    void follow_look();
    void draw_picture_menu();
    void export_picture();
    void update_title();

    Screen& screen_;
    Front& front_;
    Preferences preferences_, kept_;
    Textures textures_;
    Ui ui_;
    // Forced: by --scale and scripts; 0: as preferences and display say.
    struct Look {
        float forced_scale = 0.0f, scale = 0.0f;
        Theme theme = Theme::dark;
    } look_;
    // Where panels are docked.
    struct Layout {
        bool reset = false;
        int rebuild_in = 0;              // frames until it is made anew
        int front_in = 0;                // frames until the first tabs come to the front
        std::vector<std::string> front;  // windows whose tabs are in front
    } layout_;
    bool quit_ = false, ask_quit_ = false;
    double busy_until_ = 0.0;
    std::string title_;
    std::filesystem::path export_path_;
};

// The file dialog and everything else that is a modal window.
void draw_dialogs(Ui& ui, const std::function<void(DialogKind, const std::filesystem::path&)>& chosen);

// A value of the document or the interface by name, for scripts: "mask.count". Throws Error for an unknown name.
std::string query(const Ui& ui, const std::string& name);

}  // namespace paro::viewer
