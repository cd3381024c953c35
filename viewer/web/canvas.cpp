#include "web/canvas.h"

#include <GLES3/gl3.h>
#include <emscripten/emscripten.h>
#include <emscripten/html5.h>

#include <algorithm>

#include "app/gl.h"
#include "imgui.h"
#include "imgui_impl_opengl3.h"

// clang-format off
EM_JS(void, page_cursor, (const char* name), { Module.page.cursor(UTF8ToString(name)) })
EM_JS(void, page_title, (const char* text), { Module.page.title(UTF8ToString(text)) })
EM_JS(void, page_copy, (const char* text), { Module.page.copy(UTF8ToString(text)) })
// clang-format on

namespace paro::viewer {

namespace {

const char* css_cursor(ImGuiMouseCursor cursor) {
    switch (cursor) {
        case ImGuiMouseCursor_TextInput:
            return "text";
        case ImGuiMouseCursor_ResizeAll:
            return "move";
        case ImGuiMouseCursor_ResizeNS:
            return "ns-resize";
        case ImGuiMouseCursor_ResizeEW:
            return "ew-resize";
        case ImGuiMouseCursor_ResizeNESW:
            return "nesw-resize";
        case ImGuiMouseCursor_ResizeNWSE:
            return "nwse-resize";
        case ImGuiMouseCursor_Hand:
            return "pointer";
        case ImGuiMouseCursor_NotAllowed:
            return "not-allowed";
        default:
            return "default";
    }
}

class WebCanvas : public Canvas {
   public:
    void start() override {
        EmscriptenWebGLContextAttributes wanted;
        emscripten_webgl_init_context_attributes(&wanted);
        wanted.majorVersion = 2;
        wanted.alpha = wanted.depth = wanted.stencil = wanted.antialias = false;
        const auto context = emscripten_webgl_create_context("#canvas", &wanted);
        if (context <= 0 || emscripten_webgl_make_context_current(context) != EMSCRIPTEN_RESULT_SUCCESS) {
            throw NoScreen("no WebGL 2");
        }
        gl::use({glGenTextures, glDeleteTextures, glBindTexture, glTexImage2D, glTexSubImage2D, glTexParameteri,
                 glPixelStorei, glViewport, glClearColor, glClear, glFinish, glReadPixels, glGenFramebuffers,
                 glDeleteFramebuffers, glBindFramebuffer, glFramebufferTexture2D, glCheckFramebufferStatus, glGetString,
                 glGetIntegerv});
        ImGuiIO& io = ImGui::GetIO();
        io.BackendPlatformName = "page";
        io.BackendFlags |= ImGuiBackendFlags_HasMouseCursors;
        ImGuiPlatformIO& platform = ImGui::GetPlatformIO();
        platform.Platform_ClipboardUserData = this;
        platform.Platform_SetClipboardTextFn = [](ImGuiContext*, const char* text) {
            static_cast<WebCanvas*>(ImGui::GetPlatformIO().Platform_ClipboardUserData)->clipboard_ = text;
            page_copy(text);
        };
        platform.Platform_GetClipboardTextFn = [](ImGuiContext*) {
            return static_cast<WebCanvas*>(ImGui::GetPlatformIO().Platform_ClipboardUserData)->clipboard_.c_str();
        };
        ImGui_ImplOpenGL3_Init("#version 300 es");
        last_ = emscripten_get_now();
    }

    // Never waits: the page calls for a frame when one is due.
    bool begin_frame(double) override {
        ImGuiIO& io = ImGui::GetIO();
        io.DisplaySize = {static_cast<float>(width_), static_cast<float>(height_)};
        const double now = emscripten_get_now();
        io.DeltaTime = static_cast<float>(std::clamp((now - last_) / 1000.0, 0.0001, 1.0));
        last_ = now;
        ImGui_ImplOpenGL3_NewFrame();
        return true;
    }

    void end_frame() override {
        const gl::Functions& f = gl::f();
        f.viewport(0, 0, width_, height_);
        f.clear_color(background[0], background[1], background[2], 1.0f);
        f.clear(gl::kColorBit);
        ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
        if (const char* cursor = css_cursor(ImGui::GetMouseCursor()); cursor != cursor_) page_cursor(cursor_ = cursor);
    }

    void stop() override { ImGui_ImplOpenGL3_Shutdown(); }

    Image pixels() override {
        // What the page shows is gone from the buffer: the same draw data once more.
        end_frame();
        Image kept{width_, height_, {}};
        kept.pixel.resize(static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_));
        gl::f().pixel_store_i(gl::kPackAlignment, 1);
        gl::f().read_pixels(0, 0, width_, height_, gl::kRgba, gl::kUnsignedByte, kept.pixel.data());
        for (int y = 0; y < height_ / 2; ++y) {
            std::swap_ranges(&kept.at(0, y), &kept.at(0, y) + width_, &kept.at(0, height_ - 1 - y));
        }
        return kept;
    }

    void resize(int, int) override {}  // the page's own affair
    float scale() const override { return scale_; }
    void set_title(const std::string& title) override { page_title(title.c_str()); }

    void set_size(int width, int height, float scale) override {
        width_ = std::max(1, width);
        height_ = std::max(1, height);
        scale_ = std::clamp(scale, 0.5f, 4.0f);
    }
    void set_clipboard(const std::string& text) override { clipboard_ = text; }

   private:
    int width_ = 1, height_ = 1;
    float scale_ = 1.0f;
    double last_ = 0.0;  // milliseconds
    const char* cursor_ = nullptr;
    std::string clipboard_;
};

}  // namespace

std::unique_ptr<Canvas> make_canvas() { return std::make_unique<WebCanvas>(); }

}  // namespace paro::viewer
