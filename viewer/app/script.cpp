#include "app/script.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include "app/app.h"
#include "app/readable.h"
#include "app/script_keys.h"
#include "app/script_lines.h"
#include "document/files/utf8.h"
#include "imgui.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Leaves the processor to the workers. In a page there are none, and the page must not stop.
void rest([[maybe_unused]] int milliseconds) {
#ifndef __EMSCRIPTEN__
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
#endif
}

}  // namespace

Script Script::parse(const std::string& text, const std::filesystem::path& folder) {
    Script script;
    script.folder_ = folder;
    script.commands_ = read_script(text);
    return script;
}

Script Script::load(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    require(static_cast<bool>(file), utf8(path), "must be a script that can be read", "no readable file");
    // One byte beyond what is taken, so that a device or a large file is refused instead of read to its end.
    std::string text((std::size_t{1} << 20) + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    return parse(text, path.parent_path());
}

std::filesystem::path Script::file(const std::string& word) const {
    const std::filesystem::path path = path_of(value(word));
    return path.is_absolute() ? path : folder_ / path;
}

std::string Script::value(const std::string& word) const {
    if (!word.starts_with('$')) return word;
    std::size_t end = 1;
    while (end < word.size() && (std::isalnum(static_cast<unsigned char>(word[end])) != 0 || word[end] == '_')) ++end;
    const std::string name = word.substr(1, end - 1);
    const auto found = kept_.find(name);
    if (found != kept_.end()) return found->second + word.substr(end);
    // Places of files come from whoever runs the script.
    const char* from_outside = std::getenv(name.c_str());
    require(from_outside != nullptr, word, "must be named by `let` before, or be a variable of the environment",
            "neither");
    return from_outside + word.substr(end);
}

void Script::note(const Command& command, const std::string& reason) {
    failures_.push_back("line " + std::to_string(command.number) + ": " + command.text + "  --  " + reason);
}

void Script::fail(const Command& command, const std::string& reason) {
    note(command, reason);
    // What comes after a failure would only repeat it.
    stopped_ = true;
    frames_.clear();
}

void Script::step(App& app) {
    if (!frames_.empty()) {
        const auto action = std::move(frames_.front());
        frames_.pop_front();
        action(app);
        return;
    }
    if (done()) return;
    const Command& command = commands_[next_++];
    try {
        run(app, command);
    } catch (const std::exception& error) {
        fail(command, error.what());
    }
}

void Script::wait(App& app, double seconds) {
    const double end = seconds_now() + seconds;
    const Command command = commands_[next_ - 1];
    // Two frames more, so that what arrived is drawn and named places are where they will stay.
    const auto again = std::make_shared<std::function<void(App&)>>();
    const auto calm = std::make_shared<int>(0);
    *again = [=, this](App& shown) {
        if (shown.settled()) {
            if (++*calm < 4) frames_.push_front(*again);
            return;
        }
        *calm = 0;
        if (seconds_now() > end) {
            fail(command, "not settled in time");
            return;
        }
        rest(2);
        frames_.push_front(*again);
    };
    (*again)(app);
}

bool Script::check(App& app, const Command& command, std::string& got) const {
    std::string wanted;
    for (std::size_t i = 3; i < command.word.size(); ++i) wanted += (i > 3 ? " " : "") + value(command.word[i]);
    got = query(app.ui(), command.word[1]);
    return holds(got, command.word[2], wanted);
}

void Script::expect(App& app, const Command& command) {
    std::string got;
    ++expectations_;
    if (!check(app, command, got)) fail(command, "got \"" + got + '"');
}

void Script::until(App& app, const Command& command) {
    constexpr double kPatience = 60.0;
    const double end = seconds_now() + kPatience;
    ++expectations_;
    const auto again = std::make_shared<std::function<void(App&)>>();
    *again = [=, this](App& shown) {
        std::string got;
        if (check(shown, command, got)) return;
        if (seconds_now() > end) {
            fail(command, "never came, got \"" + got + '"');
            return;
        }
        rest(10);
        frames_.push_front(*again);
    };
    (*again)(app);
}

// measure frames N: how long frames take without anything changing. measure slider PLACE: while it is dragged.
void Script::measure(App& app, const Command& command) {
    const std::string what = command.word[1];
    const int count = command.word.size() > 2 ? std::atoi(command.word[2].c_str()) : 100;
    const auto times = std::make_shared<std::vector<double>>();
    const auto cpu = std::make_shared<std::clock_t>(std::clock());
    const auto painted = std::make_shared<std::uint64_t>(app.ui().textures.painted());
    for (int i = 0; i <= count; ++i) {
        then([=, this](App& shown) {
            times->push_back(seconds_now());
            if (i == 1) *cpu = std::clock();
            if (what == "slider") {
                const Rect rect = shown.ui().anchors.at("density.slider");
                const float at = 0.15f + 0.7f * static_cast<float>(i) / static_cast<float>(count);
                ImGui::GetIO().AddMousePosEvent(rect.min.x + (rect.max.x - rect.min.x) * at,
                                                (rect.min.y + rect.max.y) / 2);
                if (i == 0) ImGui::GetIO().AddMouseButtonEvent(0, true);
                if (i == count) ImGui::GetIO().AddMouseButtonEvent(0, false);
            }
            if (i < count) return;
            std::vector<double> took;
            for (std::size_t k = 2; k < times->size(); ++k) took.push_back((*times)[k] - (*times)[k - 1]);
            std::ranges::sort(took);
            const double mean = (times->back() - (*times)[1]) / static_cast<double>(took.size());
            const double used = static_cast<double>(std::clock() - *cpu) / CLOCKS_PER_SEC;
            std::printf(
                "measure %s: %.1f frames/s mean, 99th percentile %.1f ms, worst %.1f ms, %.1f ms of CPU a frame, "
                "%llu pictures painted\n",
                what.c_str(), 1.0 / mean, 1e3 * took[took.size() * 99 / 100], 1e3 * took.back(),
                1e3 * used / static_cast<double>(took.size()),
                static_cast<unsigned long long>(shown.ui().textures.painted() - *painted));
            std::fflush(stdout);
            kept_["fps"] = std::to_string(1.0 / mean);
        });
    }
}

// texts: prints what is drawn, and where. readable [here]: fails unless everything can be read.
void Script::read(App& app, const Command& command) {
    if (command.word[0] == "texts") {
        for (const DrawnText& drawn : drawn_texts()) {
            std::printf("text %.0f %.0f %.0f %.0f %s%s\n", static_cast<double>(drawn.ink.min.x),
                        static_cast<double>(drawn.ink.min.y), static_cast<double>(drawn.ink.max.x),
                        static_cast<double>(drawn.ink.max.y), drawn.text.c_str(),
                        drawn.shortened ? " (shortened)" : "");
        }
        std::fflush(stdout);
        return;
    }
    ++expectations_;
    std::vector<Rect> fields;
    for (const char* name : {"dialog.name"}) {
        const auto found = app.ui().anchors.find(name);
        if (found != app.ui().anchors.end()) fields.push_back(found->second);
    }
    std::string all;
    for (const std::string& fault : reading_faults(fields)) all += "\n    " + fault;
    if (all.empty()) return;
    const ImGuiIO& io = ImGui::GetIO();
    char size[64];
    std::snprintf(size, sizeof size, "%.0f x %.0f at %.0f %%:", static_cast<double>(io.DisplaySize.x),
                  static_cast<double>(io.DisplaySize.y), 100.0 * static_cast<double>(app.ui().scale));
    note(command, size + all);
}

void Script::screenshot(const Command& command) {
    // A frame more, so that what the line before did is in the picture.
    for (int i = 0; i < 3; ++i) then([](App&) {});
    then([this, command](App& shown) {
        try {
            const std::string panel = command.word.size() > 2 ? command.word[2] : "";
            write_png(shown.picture(panel), file(command.word[1]));
        } catch (const std::exception& error) {
            fail(command, error.what());
        }
    });
}

void Script::run(App& app, const Command& command) {
    const std::string& verb = command.word[0];
    Ui& ui = app.ui();
    const auto word = [&](std::size_t i) { return i < command.word.size() ? command.word[i] : std::string(); };
    if (verb == "open") app.open(file(word(1)));
    if (verb == "drop") app.screen().on_drop({utf8(file(word(1)))});
    if (verb == "wait") wait(app, command.word.size() > 1 ? std::atof(word(1).c_str()) : 120.0);
    if (verb == "frames") {
        for (int i = std::atoi(word(1).c_str()); i > 0; --i) then([](App&) {});
    }
    if (verb == "expect") expect(app, command);
    if (verb == "until") until(app, command);
    if (verb == "where") {
        const Rect& rect = ui.anchors.at(word(1));
        std::printf("where %s %.0f %.0f %.0f %.0f\n", word(1).c_str(), static_cast<double>(rect.min.x),
                    static_cast<double>(rect.min.y), static_cast<double>(rect.max.x), static_cast<double>(rect.max.y));
        std::fflush(stdout);
    }
    if (verb == "texts" || verb == "readable") {
        for (int i = 0; i < 3; ++i) then([](App&) {});
        then([this, command](App& shown) { read(shown, command); });
    }
    if (verb == "note") {
        const Rect& rect = ui.anchors.at(word(1));
        std::string text;
        for (std::size_t i = 3; i < command.word.size(); ++i) text += (i > 3 ? " " : "") + value(command.word[i]);
        const float down = static_cast<float>(std::atof(word(2).c_str()));
        ui.notes.push_back({{rect.min.x, rect.min.y + (rect.max.y - rect.min.y) * down}, text});
    }
    if (verb == "let") kept_[word(1)] = query(ui, word(3));
    if (verb == "print") {
        std::printf("%s = %s\n", word(1).c_str(), query(ui, word(1)).c_str());
        std::fflush(stdout);
    }
    if (verb == "theme") ui.preferences.theme = word(1) == "light" ? Theme::light : Theme::dark;
    if (verb == "maximise") ui.maximised = word(1);
    if (verb == "resize") {
        app.screen().resize(std::atoi(word(1).c_str()), std::atoi(word(2).c_str()));
        if (command.word.size() > 3) app.set_scale(static_cast<float>(std::atof(word(3).c_str())));
        for (int i = 0; i < 4; ++i) then([](App&) {});
    }
    if (verb == "dialog") {
        const std::vector<std::string> kinds = {"open", "save_as", "compare", "run_log", "export"};
        const auto found = std::ranges::find(kinds, word(1));
        require(found != kinds.end(), "dialog", "must be open, save_as, compare, run_log or export", word(1));
        ui.export_panel = word(2);
        ui.dialog = static_cast<DialogKind>(found - kinds.begin());
        for (int i = 0; i < 3; ++i) then([](App&) {});
    }
    if (verb == "screenshot") screenshot(command);
    if (verb == "measure") measure(app, command);
    run_input(app, command);
}

void Script::run_input(App& app, const Command& command) {
    const std::string& verb = command.word[0];
    const bool pointed =
        verb == "move" || verb == "click" || verb == "doubleclick" || verb == "drag" || verb == "wheel";
    const auto share = [&](std::size_t i, float otherwise) {
        return i < command.word.size() ? static_cast<float>(std::atof(command.word[i].c_str())) : otherwise;
    };
    if (pointed) {
        const auto found = app.ui().anchors.find(command.word[1]);
        require(found != app.ui().anchors.end(), "place", "must be one that the window shows now", command.word[1]);
        const Rect rect = found->second;
        const auto go = [rect](float x, float y) {
            ImGui::GetIO().AddMousePosEvent(rect.min.x + (rect.max.x - rect.min.x) * x,
                                            rect.min.y + (rect.max.y - rect.min.y) * y);
        };
        const bool at_place = verb != "wheel";
        const float x = at_place ? share(2, 0.5f) : 0.5f, y = at_place ? share(3, 0.5f) : 0.5f;
        then([=](App&) { go(x, y); });
        const auto press = [this](bool down) { then([down](App&) { ImGui::GetIO().AddMouseButtonEvent(0, down); }); };
        if (verb == "click" || verb == "doubleclick") {
            for (int i = verb == "click" ? 1 : 2; i > 0; --i) {
                press(true);
                press(false);
            }
        }
        if (verb == "wheel") then([dy = share(2, 1.0f)](App&) { ImGui::GetIO().AddMouseWheelEvent(0.0f, dy); });
        if (verb == "drag") {
            press(true);
            const float to_x = share(4, 0.5f), to_y = share(5, 0.5f);
            const int steps = std::max(1, static_cast<int>(share(6, 12.0f)));
            for (int i = 1; i <= steps; ++i) {
                const float t = static_cast<float>(i) / static_cast<float>(steps);
                then([=](App&) { go(x + (to_x - x) * t, y + (to_y - y) * t); });
            }
            press(false);
        }
        for (int i = 0; i < 2; ++i) then([](App&) {});
    }
    if (verb == "key") {
        const std::vector<ImGuiKey> keys = parse_chord(command.word[1]);
        for (int i = static_cast<int>(share(2, 1.0f)); i > 0; --i) {
            then([keys](App&) {
                for (const ImGuiKey key : keys) ImGui::GetIO().AddKeyEvent(key, true);
            });
            then([keys](App&) {
                for (auto key = keys.rbegin(); key != keys.rend(); ++key) ImGui::GetIO().AddKeyEvent(*key, false);
            });
        }
        then([](App&) {});
    }
    if (verb == "type") {
        std::string text;
        for (std::size_t i = 1; i < command.word.size(); ++i) text += (i > 1 ? " " : "") + value(command.word[i]);
        then([text](App&) { ImGui::GetIO().AddInputCharactersUTF8(text.c_str()); });
        then([](App&) {});
    }
}

}  // namespace paro::viewer
