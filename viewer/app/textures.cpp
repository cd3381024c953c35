#include "panels/textures.h"

#include "app/gl.h"

namespace paro::viewer {

Textures::~Textures() {
    for (auto& [name, entry] : entries_) gl::f().delete_textures(1, &entry.id);
}

void Textures::upload(Entry& entry, const Image& image, int first, int last) {
    const gl::Functions& f = gl::f();
    ++painted_;
    if (entry.id == 0) f.gen_textures(1, &entry.id);
    f.bind_texture(gl::kTexture2d, entry.id);
    f.pixel_store_i(gl::kUnpackAlignment, 1);
    if (entry.width == image.width && entry.height == image.height) {
        f.tex_sub_image_2d(gl::kTexture2d, 0, 0, first, image.width, last - first, gl::kRgba, gl::kUnsignedByte,
                           image.pixel.data() + static_cast<std::ptrdiff_t>(first) * image.width);
        return;
    }
    entry.width = image.width;
    entry.height = image.height;
    f.tex_parameter_i(gl::kTexture2d, gl::kMinFilter, gl::kNearest);
    f.tex_parameter_i(gl::kTexture2d, gl::kMagFilter, gl::kNearest);
    f.tex_parameter_i(gl::kTexture2d, gl::kWrapS, gl::kClampToEdge);
    f.tex_parameter_i(gl::kTexture2d, gl::kWrapT, gl::kClampToEdge);
    f.tex_image_2d(gl::kTexture2d, 0, static_cast<int>(gl::kRgba8), image.width, image.height, 0, gl::kRgba,
                   gl::kUnsignedByte, image.pixel.data());
}

ImTextureID Textures::get(const std::string& name, std::uint64_t key, const std::function<void(Image&)>& paint) {
    Entry& entry = entries_[name];
    entry.unused = 0;
    if (entry.id == 0 || entry.key != key) {
        paint(scratch_);
        entry.key = key;
        upload(entry, scratch_, 0, scratch_.height);
    }
    return static_cast<ImTextureID>(entry.id);
}

ImTextureID Textures::put(const std::string& name, const Image& image, int first, int last) {
    Entry& entry = entries_[name];
    entry.unused = 0;
    if (entry.id == 0 || first < last) upload(entry, image, first, last);
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
