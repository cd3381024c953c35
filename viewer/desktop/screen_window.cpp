#include <GLFW/glfw3.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "app/gl.h"
#include "desktop/gl_load.h"
#include "desktop/screens.h"
#include "imgui.h"
#include "imgui_impl_glfw.h"
#include "imgui_impl_opengl3.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

std::string last_glfw_error() {
    const char* text = nullptr;
    glfwGetError(&text);
    return text == nullptr ? "unknown reason" : text;
}

constexpr const char* kWithoutWindow =
    " Pictures need no window: --headless --screenshot FILE.png draws them without a display.";

// Why no window can be opened at all, and what to do.
std::string no_display(const std::string& reason) {
#if defined(__linux__) || defined(__FreeBSD__)
    const auto named = [](const char* name) {
        const char* value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
    };
    const std::string display = named("DISPLAY");
    if (!display.empty()) {
        return "The display " + display + " (DISPLAY) cannot be opened: " + reason +
               ". Start the viewer from the desktop's own terminal; over ssh use `ssh -X`, in a container share the X "
               "server's socket and its key (XAUTHORITY)." +
               kWithoutWindow;
    }
    if (!named("WAYLAND_DISPLAY").empty()) {
        return "The viewer needs XWayland, and this Wayland session runs without it (WAYLAND_DISPLAY is set, DISPLAY "
               "is "
               "not). Install it (Debian, Ubuntu: sudo apt install xwayland; Fedora: sudo dnf install "
               "xorg-x11-server-Xwayland; Arch: sudo pacman -S xorg-xwayland), switch it on if your compositor asks "
               "for "
               "that, and log in again." +
               std::string(kWithoutWindow);
    }
    return "There is no display: neither DISPLAY nor WAYLAND_DISPLAY is set. Start the viewer on a desktop; over ssh "
           "use "
           "`ssh -X`, or copy the profile and open it on your own machine." +
           std::string(kWithoutWindow);
#else
    return "No window can be opened: " + reason + '.' + kWithoutWindow;
#endif
}

std::string too_old(const std::string& reason) {
    std::string out = "This needs OpenGL 3.3, which the display does not offer: " + reason +
                      ". Install your graphics card's newest driver.";
#if defined(__linux__)
    out +=
        " In a virtual machine or over a remote desktop, LIBGL_ALWAYS_SOFTWARE=1 draws on the processor (Debian, "
        "Ubuntu: sudo apt install libgl1-mesa-dri).";
#elif defined(_WIN32)
    out +=
        " Over a remote desktop, start it at the machine itself once, or use Mesa's opengl32.dll beside the program.";
#endif
    return out + kWithoutWindow;
}

class Window : public Screen {
   public:
    explicit Window(ScreenOptions options) : options_(std::move(options)) {}
    ~Window() override { Window::stop(); }

    void start() override {
        if (glfwInit() != GLFW_TRUE) throw NoScreen(no_display(last_glfw_error()));
        glfwWindowHint(GLFW_CONTEXT_VERSION_MAJOR, 3);
        glfwWindowHint(GLFW_CONTEXT_VERSION_MINOR, 3);
        glfwWindowHint(GLFW_OPENGL_PROFILE, GLFW_OPENGL_CORE_PROFILE);
        glfwWindowHint(GLFW_OPENGL_FORWARD_COMPAT, GLFW_TRUE);
        glfwWindowHint(GLFW_SCALE_TO_MONITOR, GLFW_TRUE);
        window_ = glfwCreateWindow(options_.width, options_.height, options_.title.c_str(), nullptr, nullptr);
        if (window_ == nullptr) {
            const std::string reason = last_glfw_error();
            glfwTerminate();
            throw NoScreen(too_old(reason));
        }
        glfwMakeContextCurrent(window_);
        glfwSwapInterval(1);
        try {
            gl::load(reinterpret_cast<gl::GetProc>(glfwGetProcAddress));
        } catch (const Error& error) {
            stop();
            throw NoScreen(too_old(error.what()));
        }
        glfwSetWindowUserPointer(window_, this);
        glfwSetDropCallback(window_, [](GLFWwindow* window, int count, const char** paths) {
            auto* self = static_cast<Window*>(glfwGetWindowUserPointer(window));
            if (self->on_drop) self->on_drop(std::vector<std::string>(paths, paths + count));
        });
        ImGui_ImplGlfw_InitForOpenGL(window_, true);
        ImGui_ImplOpenGL3_Init("#version 330 core");
        started_ = true;
    }

    bool begin_frame(double wait) override {
        if (wait > 0.0) {
            glfwWaitEventsTimeout(wait);
        } else {
            glfwPollEvents();
        }
        if (glfwWindowShouldClose(window_) != 0) return false;
        ImGui_ImplOpenGL3_NewFrame();
        ImGui_ImplGlfw_NewFrame();
        return true;
    }

    void end_frame() override {
        glfwGetFramebufferSize(window_, &width_, &height_);
        const gl::Functions& f = gl::f();
        f.viewport(0, 0, width_, height_);
        f.clear_color(background[0], background[1], background[2], 1.0f);
        f.clear(gl::kColorBit);
        ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
        if (keep_) read();
        keep_ = false;
        glfwSwapBuffers(window_);
    }

    void stop() override {
        if (started_) {
            ImGui_ImplOpenGL3_Shutdown();
            ImGui_ImplGlfw_Shutdown();
            started_ = false;
        }
        if (window_ == nullptr) return;
        glfwDestroyWindow(window_);
        window_ = nullptr;
        glfwTerminate();
    }

    Image pixels() override {
        // What was swapped is gone: the same draw data once more.
        keep_ = true;
        end_frame();
        return std::move(kept_);
    }

    void resize(int width, int height) override { glfwSetWindowSize(window_, width, height); }

    float scale() const override {
        if (options_.scale > 0.0f) return options_.scale;
        float x = 1.0f, y = 1.0f;
        glfwGetWindowContentScale(window_, &x, &y);
        // Where the window is measured in units of its own (macOS, Wayland), ImGui already scales what it draws.
        int units = 0, pixels = 0, ignored = 0;
        glfwGetWindowSize(window_, &units, &ignored);
        glfwGetFramebufferSize(window_, &pixels, &ignored);
        // A minimised window has no size, and some drivers report a monitor of none.
        const float share = units > 0 && pixels > 0 ? static_cast<float>(units) / static_cast<float>(pixels) : 1.0f;
        return std::isfinite(x) && x > 0.0f ? std::clamp(x * share, 0.5f, 4.0f) : 1.0f;
    }

    void set_title(const std::string& title) override { glfwSetWindowTitle(window_, title.c_str()); }

   private:
    void read() {
        kept_ = {width_, height_, {}};
        kept_.pixel.resize(static_cast<std::size_t>(width_) * height_);
        gl::f().pixel_store_i(gl::kPackAlignment, 1);
        gl::f().read_pixels(0, 0, width_, height_, gl::kRgba, gl::kUnsignedByte, kept_.pixel.data());
        for (int y = 0; y < height_ / 2; ++y) {
            std::swap_ranges(&kept_.at(0, y), &kept_.at(0, y) + width_, &kept_.at(0, height_ - 1 - y));
        }
    }

    ScreenOptions options_;
    GLFWwindow* window_ = nullptr;
    bool started_ = false, keep_ = false;
    int width_ = 0, height_ = 0;
    Image kept_;
};

}  // namespace

std::unique_ptr<Screen> make_window(const ScreenOptions& options) { return std::make_unique<Window>(options); }

}  // namespace paro::viewer
