// What the program remembers between starts: recent files, theme, how maps are drawn. A small JSON in the user's
// configuration folder; a broken one is replaced by the defaults, never fatal.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "paro/paint.h"

namespace paro::viewer {

enum class Theme : std::uint8_t { dark, light };

struct Preferences {
    Theme theme = Theme::dark;
    double ui_scale = 0.0;  // 0: the display's own
    bool log_scale = true;
    Overlay overlay = Overlay::shade;
    Palette palette = Palette::dusk;
    std::vector<std::filesystem::path> recent;  // newest first, at most 10

    void remember(const std::filesystem::path& path);
    friend bool operator==(const Preferences&, const Preferences&) = default;
};

// PARO_CONFIG_DIR, else the platform's folder for settings, with /paroattention. Not created here.
std::filesystem::path config_folder();
// As text: JSON. What cannot be read is the default.
inline constexpr const char* kPreferencesName = "viewer.json";
Preferences parse_preferences(const std::string& text);
std::string dump_preferences(const Preferences& preferences);

// A setting's text in its file of a folder; empty without.
std::string read_setting(const std::filesystem::path& folder, const std::string& name);
// Creates the folder. Throws Error naming the file if it cannot be written.
void write_setting(const std::filesystem::path& folder, const std::string& name, const std::string& text);
Preferences load_preferences(const std::filesystem::path& folder);
void save_preferences(const Preferences& preferences, const std::filesystem::path& folder);

}  // namespace paro::viewer
