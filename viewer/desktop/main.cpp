// paro-viewer [FILE] [options]. Exit codes: 0 done, 1 something failed, 2 no OpenGL 3.3, 64 wrong usage.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "app/app.h"
#include "app/script.h"
#include "desktop/screens.h"
#include "document/files/utf8.h"
#include "imgui.h"
#include "implot.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

constexpr const char* kUsage =
    "paro-viewer [FILE] [options]\n"
    "\n"
    "Shows the attention maps, masks and orders of every head, and edits the profile.\n"
    "FILE: a profile (NAME.json) or a capture (NAME.capture.safetensors); the other one and the run log are found\n"
    "beside it.\n"
    "\n"
    "  --screenshot PNG   save a picture once everything is computed, and end\n"
    "  --panel NAME       only this panel: overview, head, density, profile, groups, curves, kernel, ran\n"
    "  --headless         draw without any display (EGL)\n"
    "  --undrawn          with --headless: lay everything out without drawing it, for scripts that check the layout\n"
    "  --script FILE      run a script of clicks, keys and expectations, and end\n"
    "  --compare FILE     compare with this profile\n"
    "  --runlog FILE      show this run log\n"
    "  --select LAYER HEAD  for instance --select 3 1\n"
    "  --size WxH         size of the window or picture (1280x720)\n"
    "  --scale S          size of text and controls, 0.5 to 4 (the display's own)\n"
    "  --theme dark|light\n"
    "  --config DIR       where settings are kept (PARO_CONFIG_DIR); with --headless none are, unless this is given\n"
    "  --threads N        threads for computing; 0: none, what is computed is computed between frames\n"
    "  --stats            say when the first frames were shown and how much memory was used\n"
    "  --version, --help\n";

struct Options {
    std::filesystem::path file, screenshot, script, compare, run_log, config;
    std::string panel, theme;
    std::optional<std::pair<int, int>> select;
    ScreenOptions screen;
    bool headless = false, stats = false;
    int threads = Workers::kAutomatic;
};

[[noreturn]] void usage(const std::string& problem) {
    std::fprintf(stderr, "paro-viewer: %s\n\n%s", problem.c_str(), kUsage);
    std::exit(64);
}

int threads_of(const std::string& text) {
    char* end = nullptr;
    const long count = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || count < 0 || count > 256) usage("--threads must be 0 to 256");
    return count == 0 ? Workers::kNone : static_cast<int>(count);
}

Options parse(const std::vector<std::string>& values) {
    Options out;
    std::size_t i = 0;
    const auto next = [&](const char* name) -> std::string {
        if (++i >= values.size()) usage(std::string(name) + " needs a value");
        return values[i];
    };
    for (; i < values.size(); ++i) {
        const std::string& arg = values[i];
        if (arg == "--help" || arg == "-h") {
            std::printf("%s", kUsage);
            std::exit(0);
        }
        if (arg == "--version") {
            std::printf("paro-viewer %s\n", PARO_VERSION);
            std::exit(0);
        }
        if (arg == "--headless")
            out.headless = true;
        else if (arg == "--undrawn")
            out.screen.drawn = false;
        else if (arg == "--stats")
            out.stats = true;
        else if (arg == "--screenshot")
            out.screenshot = path_of(next("--screenshot"));
        else if (arg == "--script")
            out.script = path_of(next("--script"));
        else if (arg == "--compare")
            out.compare = path_of(next("--compare"));
        else if (arg == "--runlog")
            out.run_log = path_of(next("--runlog"));
        else if (arg == "--config")
            out.config = path_of(next("--config"));
        else if (arg == "--panel")
            out.panel = next("--panel");
        else if (arg == "--theme")
            out.theme = next("--theme");
        else if (arg == "--threads")
            out.threads = threads_of(next("--threads"));
        else if (arg == "--scale")
            out.screen.scale = static_cast<float>(std::atof(next("--scale").c_str()));
        else if (arg == "--select") {
            const int layer = std::atoi(next("--select").c_str());
            out.select = {layer, std::atoi(next("--select").c_str())};
        } else if (arg == "--size") {
            if (std::sscanf(next("--size").c_str(), "%dx%d", &out.screen.width, &out.screen.height) != 2) {
                usage("--size must read WxH, for instance 1280x720");
            }
        } else if (arg.starts_with("--"))
            usage(arg + " is not an option");
        else if (!out.file.empty())
            usage("only one FILE can be opened");
        else
            out.file = path_of(arg);
    }
    const ScreenOptions& s = out.screen;
    if (s.width < 320 || s.height < 240 || s.width > 16384 || s.height > 16384)
        usage("--size must be 320x240 to 16384x16384");
    if (s.scale != 0.0f && (s.scale < 0.5f || s.scale > 4.0f)) usage("--scale must be 0.5 to 4");
    if (!out.theme.empty() && out.theme != "dark" && out.theme != "light") usage("--theme must be dark or light");
    return out;
}

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Peak resident memory in MB where the system tells it.
double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) return std::atof(line.c_str() + 6) / 1024.0;
    }
    return 0.0;
}

// Says once when the window, the document, the selected head and all heads were first seen.
class Stats {
   public:
    explicit Stats(double begun) : begun_(begun) {}
    void after_frame(const Document& document) {
        const bool open = document.has_profile();
        tell(0, true, "first frame");
        tell(1, open, "first frame with the heads");
        tell(2, open && document.head_ready(), "first frame with the selected head's six maps");
        tell(3, open && document.overview().thumb_count() == document.head_count(), "all thumbnails");
        tell(4, open && document.overview().exact_count() == document.head_count(), "all heads exact");
    }

   private:
    void tell(int index, bool reached, const char* what) {
        if (!reached || told_[index]) return;
        told_[index] = true;
        std::printf("%s after %.2f s, %.0f MB\n", what, seconds_now() - begun_, peak_memory());
        std::fflush(stdout);
    }
    double begun_;
    bool told_[5] = {};
};

// Settings as files of a folder (empty: none are read or kept), pictures as files where the user wants them.
class Desktop : public Front {
   public:
    Desktop(std::filesystem::path config, bool keep_layout) : config_(std::move(config)), keep_layout_(keep_layout) {}
    std::string setting(const std::string& name) override { return keeps(name) ? read_setting(config_, name) : ""; }
    void keep(const std::string& name, const std::string& text) override {
        if (keeps(name)) write_setting(config_, name, text);
    }
    std::string save_picture(const Image& image, const std::filesystem::path& path) override {
        write_png(image, path);
        return "Saved " + utf8(path) + '.';
    }

   private:
    bool keeps(const std::string& name) const { return !config_.empty() && (keep_layout_ || name == kPreferencesName); }
    std::filesystem::path config_;
    bool keep_layout_;
};

void set_up(App& app, Document& document, const Options& options) {
    Ui& ui = app.ui();
    if (!options.theme.empty()) ui.preferences.theme = options.theme == "light" ? Theme::light : Theme::dark;
    if (options.screen.scale > 0.0f) app.set_scale(options.screen.scale);
    if (!options.panel.empty()) {
        bool known = false;
        for (const Panel& panel : panels()) known = known || options.panel == panel.name;
        if (!known) usage("--panel must name a panel");
        ui.maximised = options.panel;
    }
    if (!options.file.empty()) app.open(options.file);
    (void)document;
}

// What has to wait until the document is open.
void set_up_open(App& app, Document& document, const Options& options) {
    if (!options.run_log.empty()) document.open_run_log(options.run_log);
    if (!options.compare.empty()) document.open_comparison(options.compare);
    if (!options.select) return;
    const auto [layer, head] = *options.select;
    const bool exists = layer >= 0 && layer < static_cast<int>(document.layers()) && head >= 0 &&
                        head < static_cast<int>(document.base().layers[static_cast<std::size_t>(layer)].heads.size());
    if (exists) document.select(document.index(static_cast<std::size_t>(layer), static_cast<std::size_t>(head)));
    app.ui().overview.scroll_to_selected = true;
}

int take_screenshot(App& app, const Document& document, const Options& options) {
    if (!document.has_profile() && !options.file.empty()) {
        for (const Message& message : document.messages()) std::fprintf(stderr, "%s\n", message.text.c_str());
        return 1;
    }
    write_png(app.picture(), options.screenshot);
    return 0;
}

int loop(App& app, Document& document, const Options& options, Script* script, double begun) {
    Stats stats(begun);
    bool opened = false;
    int calm = 0;
    for (;;) {
        if (!app.frame(script)) return 0;
        if (options.stats) stats.after_frame(document);
        if (!opened && document.has_profile()) {
            opened = true;
            set_up_open(app, document, options);
        }
        if (script != nullptr && script->done()) {
            for (const std::string& failure : script->failures()) std::fprintf(stderr, "FAILED %s\n", failure.c_str());
            if (!script->failed()) std::printf("ok, %d expectations\n", script->expectations());
            return script->failed() ? 1 : 0;
        }
        calm = app.settled() ? calm + 1 : 0;
        if (script == nullptr && !options.screenshot.empty() && calm > 5)
            return take_screenshot(app, document, options);
    }
}

int run(const Options& options, double begun) {
    IMGUI_CHECKVERSION();
    ImGui::CreateContext();
    ImPlot::CreateContext();
    std::unique_ptr<Screen> screen = options.headless ? make_headless(options.screen) : make_window(options.screen);
    screen->start();
    std::unique_ptr<Script> script;
    if (!options.script.empty()) script = std::make_unique<Script>(Script::load(options.script));
    Workers workers(options.threads);
    int code = 0;
    {
        Document document(workers);
        Desktop desktop(!options.config.empty() || options.headless ? options.config : config_folder(),
                        !options.headless);
        App app(*screen, desktop, document);
        set_up(app, document, options);
        code = loop(app, document, options, script.get(), begun);
    }
    screen->stop();
    ImPlot::DestroyContext();
    ImGui::DestroyContext();
    return code;
}

}  // namespace

}  // namespace paro::viewer

int main(int count, char** values) {
    const double begun = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    try {
        return paro::viewer::run(paro::viewer::parse(paro::viewer::arguments(count, values)), begun);
    } catch (const paro::viewer::NoScreen& error) {
        std::fprintf(stderr, "paro-viewer: %s\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "paro-viewer: %s\n", error.what());
        return 1;
    }
}
