// Pictures made on the CPU, as textures. Kept by name from frame to frame and repainted only when their key changes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "document/paint/png.h"
#include "imgui.h"

namespace paro::viewer {

class Textures {
   public:
    ~Textures();

    // The texture of `name`; paint(image) fills it when there is none yet or `key` differs from the last one.
    ImTextureID get(const std::string& name, std::uint64_t key, const std::function<void(Image&)>& paint);
    // The texture of a picture that is the caller's, of which only the rows from `first` to before `last` are new.
    ImTextureID put(const std::string& name, const Image& image, int first, int last);
    // Draws pixel for pixel: sharp squares, whatever the backend's own sampling.
    static void draw(ImDrawList* list, ImTextureID texture, ImVec2 min, ImVec2 max);
    // Frees what was not asked for since the last call. Once a frame.
    void collect();
    // How many were painted since the start; for measurements.
    std::uint64_t painted() const { return painted_; }

   private:
    struct Entry {
        unsigned id = 0;
        int width = 0, height = 0;
        std::uint64_t key = 0;
        int unused = 0;
    };
    // Makes the texture, and uploads the rows of the image; all of them if it had another size.
    void upload(Entry& entry, const Image& image, int first, int last);

    std::map<std::string, Entry> entries_;
    Image scratch_;
    std::uint64_t painted_ = 0;
};

// Mixes values into a key.
class Key {
   public:
    template <typename Value>
    Key& add(const Value& value) {
        static_assert(std::is_trivially_copyable_v<Value>);
        const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
        for (std::size_t i = 0; i < sizeof value; ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3ull;
        return *this;
    }
    std::uint64_t value() const { return hash_; }

   private:
    std::uint64_t hash_ = 0xcbf29ce484222325ull;
};

}  // namespace paro::viewer
