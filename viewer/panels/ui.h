// What panels share while a frame is drawn: the document, the textures, names of places for scripts, and the state of
// the interface that is no part of the document.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "document/compute/head_list.h"
#include "document/document.h"
#include "document/files/preferences.h"
#include "imgui.h"
#include "panels/textures.h"

namespace paro::viewer {

struct Rect {
    ImVec2 min, max;
};

// State of the one-head panel: what part of the maps is seen, shared by all six.
struct HeadPanelState {
    View view{0.0, 0.0, 1.0, 1.0};  // in shares of the whole map
    bool exact_rows = false;
    int enlarged = -1;  // one order alone
};

struct OverviewState {
    ColorBy color = ColorBy::map;
    SortBy sort = SortBy::place;
    HeadFilter filter;
    std::vector<std::size_t> list;
    int columns = 1;
    bool scroll_to_selected = false;
    // All thumbnails as one picture, and what each one was painted of.
    Image atlas;
    std::vector<std::uint64_t> painted;
};

struct DensityState {
    Scope scope = Scope::head;
    bool pin = false;
    std::uint64_t drag = 0;  // merge number of the drag that goes on
};

struct KernelState {
    int at[3] = {0, 0, 0};  // bin of the axis that a slice leaves out
};

enum class DialogKind : std::uint8_t { open, save_as, compare, run_log, export_png };

struct Ui {
    Document& document;
    Preferences& preferences;
    Textures& textures;
    Ui(Document& shown, Preferences& kept, Textures& pictures)
        : document(shown), preferences(kept), textures(pictures) {}

    float scale = 1.0f;  // pixels of a unit; fonts and sizes are scaled by it already

    HeadPanelState head;
    OverviewState overview;
    DensityState density;
    KernelState kernel;
    std::string maximised;             // name of the panel that fills the window, empty for all
    std::optional<DialogKind> dialog;  // to be opened
    bool help = false;
    bool show_comparison = false;                       // a new comparison comes to the front
    std::string export_panel;                           // to be saved as a picture
    std::vector<std::pair<ImVec2, std::string>> notes;  // texts that a script draws over everything

    // Places by name, of the frame that is drawn: "density.slider".
    std::map<std::string, Rect, std::less<>> anchors;
    // Names the last item; for scripts and tests.
    void anchor(std::string_view name);
    void anchor(std::string_view name, ImVec2 min, ImVec2 max);

    bool light() const { return preferences.theme == Theme::light; }
    float px(float units) const { return units * scale; }
    Style style() const;
    // Budget of a density for painting, at least 1.
    static std::uint32_t budget(const BlockRanking& ranking, double density);
};

// Wraps ImGui's tooltip: shown after a short rest on the last item.
void tooltip(const char* text);
// Text in the muted colour; in the second form it goes on in the next line at the panel's edge.
void muted(const char* format, ...) IM_FMTARGS(1);
void muted_wrapped(const char* format, ...) IM_FMTARGS(1);
void wrapped(ImVec4 color, const char* format, ...) IM_FMTARGS(2);

// Everything below serves one rule: whatever the size of the window and of its text, no text stands on another one, is
// covered or is cut off. app/readable.h checks it.

// The text, or both its ends around an ellipsis if it is wider than `width` pixels.
std::string fitted(const std::string& text, float width);
// Draws it so; the whole text is then its tooltip.
void fitted_text(const std::string& text, float width);
// The first of the texts that fits; none does: empty.
std::string fullest(std::initializer_list<std::string> texts, float width);
// The next item, `width` pixels wide, comes beside the last one if it fits there, otherwise into the next line.
void flow(float width, float spacing = -1.0f);
// BeginChild for texts: they end before its edge.
bool begin_part(const char* name, ImVec2 size);
float text_width(const std::string& text);
float button_width(const char* label);
float checkbox_width(const char* label);

ImU32 to_u32(Rgba color);
ImVec4 to_vec4(Rgba color);
// Colour of a path, a message or an emphasised value in the current theme.
ImU32 path_color(Path path);
ImVec4 accent_color(const Ui& ui);
ImVec4 warning_color(const Ui& ui);

// A panel: one file under panels/, one entry in the table.
struct Panel {
    const char* name;   // of scripts, anchors and exported pictures
    const char* title;  // of the window
    void (*draw)(Ui& ui);
};
const std::vector<Panel>& panels();

void draw_overview(Ui& ui);
void draw_head(Ui& ui);
void draw_density(Ui& ui);
void draw_curves(Ui& ui);
void draw_kernel(Ui& ui);
void draw_groups(Ui& ui);
void draw_ran(Ui& ui);
void draw_profile(Ui& ui);
void draw_help(Ui& ui);

}  // namespace paro::viewer
