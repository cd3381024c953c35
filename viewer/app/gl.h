// The few functions of OpenGL 3.3 and WebGL 2 that the viewer calls itself. Each front says where they are.
#pragma once

#include <cstdint>
#include <string>

namespace paro::viewer::gl {

inline constexpr unsigned kTexture2d = 0x0DE1, kRgba = 0x1908, kRgba8 = 0x8058, kUnsignedByte = 0x1401;
inline constexpr unsigned kMinFilter = 0x2801, kMagFilter = 0x2800, kNearest = 0x2600, kWrapS = 0x2802, kWrapT = 0x2803;
inline constexpr unsigned kClampToEdge = 0x812F, kFramebuffer = 0x8D40, kColorAttachment = 0x8CE0;
inline constexpr unsigned kFramebufferComplete = 0x8CD5, kColorBit = 0x4000, kVersion = 0x1F02, kRenderer = 0x1F01;
inline constexpr unsigned kMajor = 0x821B, kMinor = 0x821C, kPackAlignment = 0x0D05, kUnpackAlignment = 0x0CF5;

#ifdef _WIN32
#define PARO_GL_CALL __stdcall
#else
#define PARO_GL_CALL
#endif

struct Functions {
    void(PARO_GL_CALL* gen_textures)(int, unsigned*);
    void(PARO_GL_CALL* delete_textures)(int, const unsigned*);
    void(PARO_GL_CALL* bind_texture)(unsigned, unsigned);
    void(PARO_GL_CALL* tex_image_2d)(unsigned, int, int, int, int, int, unsigned, unsigned, const void*);
    void(PARO_GL_CALL* tex_sub_image_2d)(unsigned, int, int, int, int, int, unsigned, unsigned, const void*);
    void(PARO_GL_CALL* tex_parameter_i)(unsigned, unsigned, int);
    void(PARO_GL_CALL* pixel_store_i)(unsigned, int);
    void(PARO_GL_CALL* viewport)(int, int, int, int);
    void(PARO_GL_CALL* clear_color)(float, float, float, float);
    void(PARO_GL_CALL* clear)(unsigned);
    void(PARO_GL_CALL* finish)();
    void(PARO_GL_CALL* read_pixels)(int, int, int, int, unsigned, unsigned, void*);
    void(PARO_GL_CALL* gen_framebuffers)(int, unsigned*);
    void(PARO_GL_CALL* delete_framebuffers)(int, const unsigned*);
    void(PARO_GL_CALL* bind_framebuffer)(unsigned, unsigned);
    void(PARO_GL_CALL* framebuffer_texture_2d)(unsigned, unsigned, unsigned, unsigned, int);
    unsigned(PARO_GL_CALL* check_framebuffer_status)(unsigned);
    const unsigned char*(PARO_GL_CALL* get_string)(unsigned);
    void(PARO_GL_CALL* get_integer)(unsigned, int*);
};

// Those of the current context.
void use(const Functions& functions);
const Functions& f();
// "4.5 (Core Profile) Mesa ... on llvmpipe"
std::string description();

}  // namespace paro::viewer::gl
