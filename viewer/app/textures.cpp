#include "panels/textures.h"

#include "app/gl.h"

namespace paro::viewer {

Textures::~Textures() {
    for (auto& [name, entry] : entries_) gl::f().delete_textures(1, &entry.id);
}

ImTextureID Textures::get(const std::string& name, std::uint64_t key, const std::function<void(Image&)>& paint) {
    const gl::Functions& f = gl::f();
    Entry& entry = entries_[name];
    entry.unused = 0;
    if (entry.id != 0 && entry.key == key) return static_cast<ImTextureID>(entry.id);
    paint(scratch_);
    ++painted_;
    entry.key = key;
    if (entry.id == 0) f.gen_textures(1, &entry.id);
    f.bind_texture(gl::kTexture2d, entry.id);
    f.pixel_store_i(gl::kUnpackAlignment, 1);
    if (entry.width == scratch_.width && entry.height == scratch_.height) {
        f.tex_sub_image_2d(gl::kTexture2d, 0, 0, 0, entry.width, entry.height, gl::kRgba, gl::kUnsignedByte,
                           scratch_.pixel.data());
        return static_cast<ImTextureID>(entry.id);
    }
    entry.width = scratch_.width;
    entry.height = scratch_.height;
    f.tex_parameter_i(gl::kTexture2d, gl::kMinFilter, gl::kNearest);
    f.tex_parameter_i(gl::kTexture2d, gl::kMagFilter, gl::kNearest);
    f.tex_parameter_i(gl::kTexture2d, gl::kWrapS, gl::kClampToEdge);
    f.tex_parameter_i(gl::kTexture2d, gl::kWrapT, gl::kClampToEdge);
    f.tex_image_2d(gl::kTexture2d, 0, static_cast<int>(gl::kRgba8), entry.width, entry.height, 0, gl::kRgba,
                   gl::kUnsignedByte, scratch_.pixel.data());
    return static_cast<ImTextureID>(entry.id);
}

void Textures::draw(ImDrawList* list, ImTextureID texture, ImVec2 min, ImVec2 max) {
    // The OpenGL backend samples linearly unless told otherwise, which blurs heat maps.
    const ImGuiPlatformIO& platform = ImGui::GetPlatformIO();
    if (platform.DrawCallback_SetSamplerNearest) list->AddCallback(platform.DrawCallback_SetSamplerNearest, nullptr);
    list->AddImage(texture, min, max);
    if (platform.DrawCallback_SetSamplerLinear) list->AddCallback(platform.DrawCallback_SetSamplerLinear, nullptr);
}

void Textures::collect() {
    constexpr int kPatience = 120;  // frames
    for (auto entry = entries_.begin(); entry != entries_.end();) {
        if (++entry->second.unused < kPatience) {
            ++entry;
            continue;
        }
        gl::f().delete_textures(1, &entry->second.id);
        entry = entries_.erase(entry);
    }
}

}  // namespace paro::viewer
