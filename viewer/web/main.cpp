// The viewer in a page. The page calls for frames, tells what the user does and speaks with the server; viewer.js has
// its side.
#include <emscripten/emscripten.h>

#include <cstdio>
#include <memory>
#include <string>

#include "app/app.h"
#include "app/script.h"
#include "document/files/utf8.h"
#include "imgui.h"
#include "implot.h"
#include "paro/error.h"
#include "web/canvas.h"
#include "web/page_store.h"

// clang-format off
EM_JS(char*, page_setting, (const char* name), { return stringToNewUTF8(Module.page.setting(UTF8ToString(name))) })
EM_JS(int, page_keep, (const char* name, const char* text), {
    return Module.page.keep(UTF8ToString(name), UTF8ToString(text)) ? 1 : 0
})
EM_JS(void, page_hand_out, (const char* name, const void* bytes, int size, const char* type), {
    Module.page.handOut(UTF8ToString(name), HEAPU8.slice(bytes, bytes + size), UTF8ToString(type))
})
EM_JS(void, page_wake, (), { Module.page.wake() })
// clang-format on

namespace paro::viewer {

namespace {

class Page : public Front {
   public:
    std::string setting(const std::string& name) override {
        char* text = page_setting(name.c_str());
        std::string out = text;
        std::free(text);
        return out;
    }
    void keep(const std::string& name, const std::string& text) override {
        require(page_keep(name.c_str(), text.c_str()) != 0, "this site's storage", "must be open to pages",
                "blocked by the browser, so they are those of this visit only");
    }
    bool quits() const override { return false; }
    std::string save_picture(const Image& image, const std::filesystem::path& path) override {
        const std::vector<std::uint8_t> bytes = encode_png(image);
        page_hand_out(utf8(path.filename()).c_str(), bytes.data(), static_cast<int>(bytes.size()), "image/png");
        return "The browser has " + utf8(path.filename()) + '.';
    }
    bool hands_out() const override { return true; }
    void hand_out(const std::string& text, const std::string& name) override {
        page_hand_out(name.c_str(), text.data(), static_cast<int>(text.size()), "application/json");
    }
};

struct Program {
    Page front;
    PageStore store;
    Workers workers{Workers::kNone};
    Document document{workers, store};
    std::unique_ptr<Canvas> canvas = make_canvas();
    std::unique_ptr<App> app;
    std::unique_ptr<Script> script;
    int calm = 0;  // frames since something went on
    std::string answer;
};

Program* program = nullptr;

// Whatever the page told may change what is shown.
void wake() {
    program->calm = 0;
    page_wake();
}

}  // namespace

}  // namespace paro::viewer

using namespace paro::viewer;

extern "C" {

// 1: the program is ready for frames; 0: the browser has no WebGL 2.
EMSCRIPTEN_KEEPALIVE int paro_start() {
    IMGUI_CHECKVERSION();
    ImGui::CreateContext();
    ImPlot::CreateContext();
    program = new Program;
    try {
        program->canvas->start();
    } catch (const NoScreen&) {
        return 0;
    }
    program->app = std::make_unique<App>(*program->canvas, program->front, program->document);
    return 1;
}

// Milliseconds until the next frame is due: 0 as soon as the browser draws again, below 0 not before something happens.
EMSCRIPTEN_KEEPALIVE double paro_frame() {
    program->app->frame(program->script.get());
    if (program->app->busy(program->script.get())) {
        program->calm = 0;
        return 0.0;
    }
    // Tooltips come after a rest, and what is drawn last lags a frame behind.
    constexpr int kLast = 3;
    constexpr double kRest = 250.0, kBlink = 400.0;
    if (++program->calm <= kLast) return kRest;
    return ImGui::GetIO().WantTextInput ? kBlink : -1.0;
}

EMSCRIPTEN_KEEPALIVE void paro_size(int width, int height, float scale) {
    program->canvas->set_size(width, height, scale);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_theme(int light) {
    program->app->ui().preferences.theme = light != 0 ? Theme::light : Theme::dark;
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_mac() { ImGui::GetIO().ConfigMacOSXBehaviors = true; }

// -- what the user does. Places in the canvas' own pixels.
EMSCRIPTEN_KEEPALIVE void paro_mouse(float x, float y) {
    ImGui::GetIO().AddMousePosEvent(x, y);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_button(int button, int down) {
    ImGui::GetIO().AddMouseButtonEvent(button, down != 0);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_wheel(float x, float y) {
    ImGui::GetIO().AddMouseWheelEvent(x, y);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_key(const char* name, int modifiers, int down) {
    add_key(name, modifiers, down != 0);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_text(const char* text) {
    ImGui::GetIO().AddInputCharactersUTF8(text);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_clipboard(const char* text) { program->canvas->set_clipboard(text); }
EMSCRIPTEN_KEEPALIVE void paro_focus(int focused) {
    ImGui::GetIO().AddFocusEvent(focused != 0);
    wake();
}

// -- files
EMSCRIPTEN_KEEPALIVE void paro_open(const char* name) {
    program->app->open(path_of(name));
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_own(const char* name) {
    program->store.tell_own(name);
    program->app->open(path_of(name));
    program->document.tell(Message::Kind::info, std::string(name) +
                                                    " is open from your machine. Save puts it on the "
                                                    "server.");
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_version(const char* name, const char* tag) {
    if (!program->store.tell_version(name, tag)) return;
    program->document.look_now();
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_begin_list() { program->store.begin_list(); }
EMSCRIPTEN_KEEPALIVE void paro_listed(const char* name, const char* tag) {
    program->store.tell_listed(name, tag);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_brought(int id, const char* tag, const char* problem) {
    program->store.tell_brought(id, tag, problem);
    wake();
}
EMSCRIPTEN_KEEPALIVE void paro_saved(int id, const char* tag, const char* refusal) {
    program->store.tell_saved(id, tag, refusal);
    wake();
}
// kind: 0 news, 1 a warning, 2 an error
EMSCRIPTEN_KEEPALIVE void paro_tell(int kind, const char* text) {
    program->document.tell(static_cast<Message::Kind>(kind), text);
    wake();
}
EMSCRIPTEN_KEEPALIVE int paro_modified() { return program->document.modified() || program->document.saving() ? 1 : 0; }
// The name of the open profile's file; empty without.
EMSCRIPTEN_KEEPALIVE const char* paro_shown() {
    program->answer = program->document.has_profile() ? utf8(program->document.path()) : "";
    return program->answer.c_str();
}

// -- for tests, as `paro-viewer --script` has it
EMSCRIPTEN_KEEPALIVE const char* paro_query(const char* name) {
    try {
        program->answer = query(program->app->ui(), name);
    } catch (const std::exception& error) {
        program->answer = std::string("error: ") + error.what();
    }
    return program->answer.c_str();
}
// "X0 Y0 X1 Y1" of a place of the last frame; empty for none.
EMSCRIPTEN_KEEPALIVE const char* paro_place(const char* name) {
    program->answer.clear();
    const auto& anchors = program->app->ui().anchors;
    if (const auto found = anchors.find(std::string_view(name)); found != anchors.end()) {
        const Rect& rect = found->second;
        for (const float value : {rect.min.x, rect.min.y, rect.max.x, rect.max.y}) {
            program->answer += std::to_string(value) + ' ';
        }
    }
    return program->answer.c_str();
}
// The failures of parsing, or empty: the script runs.
EMSCRIPTEN_KEEPALIVE const char* paro_script(const char* text) {
    program->answer.clear();
    try {
        program->script = std::make_unique<Script>(Script::parse(text, {}));
        wake();
    } catch (const std::exception& error) {
        program->answer = error.what();
    }
    return program->answer.c_str();
}
// "running", "ok, N expectations", or the failures.
EMSCRIPTEN_KEEPALIVE const char* paro_script_state() {
    if (!program->script) return "none";
    if (!program->script->done()) return "running";
    program->answer = "ok, " + std::to_string(program->script->expectations()) + " expectations";
    if (program->script->failed()) program->answer.clear();
    for (const std::string& failure : program->script->failures()) program->answer += "FAILED " + failure + '\n';
    program->script.reset();
    return program->answer.c_str();
}

}  // extern "C"
