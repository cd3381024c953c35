#include "desktop/gl_load.h"

#include <string>

#include "app/gl.h"
#include "paro/error.h"

namespace paro::viewer::gl {

namespace {

template <typename Function>
void get(GetProc get_proc, const char* name, Function& function) {
    function = reinterpret_cast<Function>(get_proc(name));
    require(function != nullptr, "OpenGL", std::string("must be version 3.3 or newer with ") + name,
            "no such function");
}

}  // namespace

void load(GetProc get_proc) {
    Functions f{};
    get(get_proc, "glGetString", f.get_string);
    get(get_proc, "glGetIntegerv", f.get_integer);
    int major = 0, minor = 0;
    f.get_integer(kMajor, &major);
    f.get_integer(kMinor, &minor);
    require(major * 10 + minor >= 33, "OpenGL", "must be version 3.3 or newer",
            reinterpret_cast<const char*>(f.get_string(kVersion)));
    get(get_proc, "glGenTextures", f.gen_textures);
    get(get_proc, "glDeleteTextures", f.delete_textures);
    get(get_proc, "glBindTexture", f.bind_texture);
    get(get_proc, "glTexImage2D", f.tex_image_2d);
    get(get_proc, "glTexSubImage2D", f.tex_sub_image_2d);
    get(get_proc, "glTexParameteri", f.tex_parameter_i);
    get(get_proc, "glPixelStorei", f.pixel_store_i);
    get(get_proc, "glViewport", f.viewport);
    get(get_proc, "glClearColor", f.clear_color);
    get(get_proc, "glClear", f.clear);
    get(get_proc, "glFinish", f.finish);
    get(get_proc, "glReadPixels", f.read_pixels);
    get(get_proc, "glGenFramebuffers", f.gen_framebuffers);
    get(get_proc, "glDeleteFramebuffers", f.delete_framebuffers);
    get(get_proc, "glBindFramebuffer", f.bind_framebuffer);
    get(get_proc, "glFramebufferTexture2D", f.framebuffer_texture_2d);
    get(get_proc, "glCheckFramebufferStatus", f.check_framebuffer_status);
    use(f);
}

}  // namespace paro::viewer::gl
