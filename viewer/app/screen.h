// Where frames go: a window (GLFW), a picture in memory (EGL without any display), or a page's canvas (WebGL 2).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "document/paint/png.h"

namespace paro::viewer {

struct ScreenOptions {
    int width = 1280, height = 720;  // in pixels for a picture, in screen units for a window
    float scale = 0.0f;              // pixels of a unit; 0: the display's own, 1 without display
    std::string title = "PARO Viewer";
    bool drawn = true;  // without a window: false lays everything out and leaves the pictures black
};

// Thrown where no OpenGL 3.3 can be had: the program ends with exit code 2.
class NoScreen : public std::exception {
   public:
    explicit NoScreen(std::string text) : text_(std::move(text)) {}
    const char* what() const noexcept override { return text_.c_str(); }

   private:
    std::string text_;
};

class Screen {
   public:
    virtual ~Screen() = default;
    // Makes the OpenGL context current and starts ImGui's backends. Needs an ImGui context. Throws NoScreen.
    virtual void start() = 0;
    // Feeds ImGui's platform side; false when the user closes the window. wait: seconds that may pass without input.
    virtual bool begin_frame(double wait) = 0;
    // Draws ImGui's draw data and shows it.
    virtual void end_frame() = 0;
    virtual void stop() = 0;
    // The frame drawn last.
    virtual Image pixels() = 0;
    virtual void resize(int width, int height) = 0;
    virtual float scale() const = 0;
    virtual void set_title(const std::string&) {}
    // What a frame is cleared to. Panels are drawn straight on it: in software every layer over the whole window costs.
    float background[3] = {0.1f, 0.1f, 0.1f};
    // Called with the paths that were dropped on the window.
    std::function<void(const std::vector<std::string>&)> on_drop;
};

}  // namespace paro::viewer
