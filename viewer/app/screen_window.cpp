#include <GLFW/glfw3.h>

#include "app/gl.h"
#include "app/screen.h"
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

class Window : public Screen {
   public:
    explicit Window(ScreenOptions options) : options_(std::move(options)) {}
    ~Window() override { Window::stop(); }

    void start() override {
        if (glfwInit() != GLFW_TRUE) throw NoScreen("No window can be opened: " + last_glfw_error());
        glfwWindowHint(GLFW_CONTEXT_VERSION_MAJOR, 3);
        glfwWindowHint(GLFW_CONTEXT_VERSION_MINOR, 3);
        glfwWindowHint(GLFW_OPENGL_PROFILE, GLFW_OPENGL_CORE_PROFILE);
        glfwWindowHint(GLFW_OPENGL_FORWARD_COMPAT, GLFW_TRUE);
        glfwWindowHint(GLFW_SCALE_TO_MONITOR, GLFW_TRUE);
        window_ = glfwCreateWindow(options_.width, options_.height, options_.title.c_str(), nullptr, nullptr);
        if (window_ == nullptr) {
            const std::string reason = last_glfw_error();
            glfwTerminate();
            throw NoScreen("This needs OpenGL 3.3, which the display does not offer: " + reason +
                           ". A newer graphics driver helps, or --headless --screenshot FILE.png.");
        }
        glfwMakeContextCurrent(window_);
        glfwSwapInterval(1);
        try {
            gl::load(reinterpret_cast<gl::GetProc>(glfwGetProcAddress));
        } catch (const Error& error) {
            stop();
            throw NoScreen(error.what());
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
        return units > 0 ? x * static_cast<float>(units) / static_cast<float>(std::max(1, pixels)) : x;
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
