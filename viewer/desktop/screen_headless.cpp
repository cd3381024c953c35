#include <optional>

#include "app/gl.h"
#include "desktop/gl_load.h"
#include "desktop/screens.h"
#include "imgui.h"
#include "imgui_impl_opengl3.h"
#include "paro/error.h"

#ifdef PARO_HAS_EGL
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <dlfcn.h>

#include <cstdio>
#endif

namespace paro::viewer {

#ifdef PARO_HAS_EGL

namespace {

constexpr const char* kMesa =
    " Mesa's software renderer offers it (Debian, Ubuntu: sudo apt install libegl1 libgl1-mesa-dri; Fedora: sudo dnf "
    "install mesa-libEGL mesa-dri-drivers).";

// Loaded when it is asked for: the program with its window also starts where there is no EGL.
struct Egl {
    decltype(&::eglGetProcAddress) get_proc_address;
    decltype(&::eglGetDisplay) get_display;
    decltype(&::eglInitialize) initialize;
    decltype(&::eglBindAPI) bind_api;
    decltype(&::eglChooseConfig) choose_config;
    decltype(&::eglCreateContext) create_context;
    decltype(&::eglMakeCurrent) make_current;
    decltype(&::eglDestroyContext) destroy_context;
    decltype(&::eglTerminate) terminate;
    decltype(&::eglGetError) get_error;

    Egl() {
        void* library = dlopen("libEGL.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            const char* reason = dlerror();
            throw NoScreen("--headless draws through EGL, which this system lacks (" +
                           std::string(reason == nullptr ? "no libEGL.so.1" : reason) + ")." + kMesa);
        }
        const auto get = [library]<typename Function>(Function& function, const char* name) {
            function = reinterpret_cast<Function>(dlsym(library, name));
            if (function == nullptr) throw NoScreen(std::string("This system's EGL has no ") + name + '.' + kMesa);
        };
        get(get_proc_address, "eglGetProcAddress");
        get(get_display, "eglGetDisplay");
        get(initialize, "eglInitialize");
        get(bind_api, "eglBindAPI");
        get(choose_config, "eglChooseConfig");
        get(create_context, "eglCreateContext");
        get(make_current, "eglMakeCurrent");
        get(destroy_context, "eglDestroyContext");
        get(terminate, "eglTerminate");
        get(get_error, "eglGetError");
    }
};

class Headless : public Screen {
   public:
    explicit Headless(const ScreenOptions& options)
        : width_(options.width),
          height_(options.height),
          scale_(options.scale > 0.0f ? options.scale : 1.0f),
          drawn_(options.drawn) {}
    ~Headless() override { Headless::stop(); }

    void start() override {
        egl_.emplace();
        open_context();
        try {
            gl::load(reinterpret_cast<gl::GetProc>(egl_->get_proc_address));
        } catch (const Error& error) {
            throw NoScreen(std::string(error.what()) + '.' + kMesa);
        }
        make_target();
        ImGui_ImplOpenGL3_Init("#version 330 core");
        ImGui::GetIO().BackendPlatformName = "headless";
        started_ = true;
    }

    bool begin_frame(double) override {
        ImGuiIO& io = ImGui::GetIO();
        io.DisplaySize = {static_cast<float>(width_), static_cast<float>(height_)};
        io.DeltaTime = 1.0f / 60.0f;
        ImGui_ImplOpenGL3_NewFrame();
        return true;
    }

    void end_frame() override {
        if (!drawn_) {
            for (ImTextureData* texture : *ImGui::GetDrawData()->Textures) {
                if (texture->Status != ImTextureStatus_OK) ImGui_ImplOpenGL3_UpdateTexture(texture);
            }
            return;
        }
        const gl::Functions& f = gl::f();
        f.bind_framebuffer(gl::kFramebuffer, target_);
        f.viewport(0, 0, width_, height_);
        f.clear_color(background[0], background[1], background[2], 1.0f);
        f.clear(gl::kColorBit);
        ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
        f.finish();
    }

    void stop() override {
        if (started_) ImGui_ImplOpenGL3_Shutdown();
        started_ = false;
        if (display_ == EGL_NO_DISPLAY) return;
        if (target_ != 0) {
            gl::f().delete_framebuffers(1, &target_);
            gl::f().delete_textures(1, &color_);
            target_ = color_ = 0;
        }
        egl_->make_current(display_, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
        if (context_ != EGL_NO_CONTEXT) egl_->destroy_context(display_, context_);
        egl_->terminate(display_);
        display_ = EGL_NO_DISPLAY;
        context_ = EGL_NO_CONTEXT;
    }

    Image pixels() override {
        Image out{width_, height_, {}};
        out.pixel.resize(static_cast<std::size_t>(width_) * height_);
        const gl::Functions& f = gl::f();
        f.bind_framebuffer(gl::kFramebuffer, target_);
        f.pixel_store_i(gl::kPackAlignment, 1);
        f.read_pixels(0, 0, width_, height_, gl::kRgba, gl::kUnsignedByte, out.pixel.data());
        for (int y = 0; y < height_ / 2; ++y) {
            std::swap_ranges(&out.at(0, y), &out.at(0, y) + width_, &out.at(0, height_ - 1 - y));
        }
        return out;
    }

    void resize(int width, int height) override {
        if (width == width_ && height == height_) return;
        width_ = width;
        height_ = height;
        gl::f().delete_framebuffers(1, &target_);
        gl::f().delete_textures(1, &color_);
        make_target();
    }

    float scale() const override { return scale_; }

   private:
    void open_context() {
        const auto platform_display =
            reinterpret_cast<PFNEGLGETPLATFORMDISPLAYEXTPROC>(egl_->get_proc_address("eglGetPlatformDisplayEXT"));
        if (platform_display != nullptr) {
            display_ = platform_display(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, nullptr);
        }
        if (display_ == EGL_NO_DISPLAY) display_ = egl_->get_display(EGL_DEFAULT_DISPLAY);
        if (display_ == EGL_NO_DISPLAY || egl_->initialize(display_, nullptr, nullptr) != EGL_TRUE)
            fail_with("initialise");
        if (egl_->bind_api(EGL_OPENGL_API) != EGL_TRUE) fail_with("offer OpenGL");
        const EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT, EGL_NONE};
        EGLConfig config = nullptr;
        EGLint count = 0;
        // Surfaceless contexts may come without any configuration.
        if (egl_->choose_config(display_, wanted, &config, 1, &count) != EGL_TRUE || count == 0) config = nullptr;
        const EGLint attributes[] = {
            EGL_CONTEXT_MAJOR_VERSION,           3,       EGL_CONTEXT_MINOR_VERSION, 3, EGL_CONTEXT_OPENGL_PROFILE_MASK,
            EGL_CONTEXT_OPENGL_CORE_PROFILE_BIT, EGL_NONE};
        context_ = egl_->create_context(display_, config, EGL_NO_CONTEXT, attributes);
        if (context_ == EGL_NO_CONTEXT) fail_with("make an OpenGL 3.3 context");
        if (egl_->make_current(display_, EGL_NO_SURFACE, EGL_NO_SURFACE, context_) != EGL_TRUE)
            fail_with("work surfaceless");
    }

    [[noreturn]] void fail_with(const char* what) {
        char code[16];
        std::snprintf(code, sizeof code, "0x%04x", static_cast<unsigned>(egl_->get_error()));
        throw NoScreen(std::string("This needs OpenGL 3.3 through EGL, which could not ") + what + " (" + code + ")." +
                       kMesa);
    }

    void make_target() {
        const gl::Functions& f = gl::f();
        f.gen_textures(1, &color_);
        f.bind_texture(gl::kTexture2d, color_);
        f.tex_image_2d(gl::kTexture2d, 0, static_cast<int>(gl::kRgba8), width_, height_, 0, gl::kRgba,
                       gl::kUnsignedByte, nullptr);
        f.tex_parameter_i(gl::kTexture2d, gl::kMinFilter, gl::kNearest);
        f.gen_framebuffers(1, &target_);
        f.bind_framebuffer(gl::kFramebuffer, target_);
        f.framebuffer_texture_2d(gl::kFramebuffer, gl::kColorAttachment, gl::kTexture2d, color_, 0);
        if (f.check_framebuffer_status(gl::kFramebuffer) != gl::kFramebufferComplete) {
            throw NoScreen("A picture of " + std::to_string(width_) + " x " + std::to_string(height_) +
                           " pixels is beyond what this OpenGL draws.");
        }
    }

    int width_, height_;
    float scale_;
    std::optional<Egl> egl_;
    EGLDisplay display_ = EGL_NO_DISPLAY;
    EGLContext context_ = EGL_NO_CONTEXT;
    unsigned target_ = 0, color_ = 0;
    bool started_ = false, drawn_;
};

}  // namespace

std::unique_ptr<Screen> make_headless(const ScreenOptions& options) { return std::make_unique<Headless>(options); }

#else

std::unique_ptr<Screen> make_headless(const ScreenOptions&) {
    throw NoScreen(
        "--headless needs EGL, which this build lacks. Leave it away to open a window, or build again where EGL's "
        "headers "
        "are (Debian, Ubuntu: sudo apt install libegl-dev).");
}

#endif

}  // namespace paro::viewer
