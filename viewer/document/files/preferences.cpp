#include "document/files/preferences.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "document/files/utf8.h"
#include "paro/error.h"

namespace paro::viewer {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxRecent = 10;
constexpr std::uintmax_t kMaxBytes = 1u << 20;

template <typename Value>
Value member(const nlohmann::json& json, const char* key, Value otherwise, int count) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_integer()) return otherwise;
    const auto value = found->get<std::int64_t>();
    return value >= 0 && value < count ? static_cast<Value>(value) : otherwise;
}

}  // namespace

void Preferences::remember(const fs::path& path) {
    std::error_code error;
    const fs::path whole = fs::absolute(path, error);
    std::erase(recent, error ? path : whole);
    recent.insert(recent.begin(), error ? path : whole);
    if (recent.size() > kMaxRecent) recent.resize(kMaxRecent);
}

fs::path config_folder() {
    if (const fs::path own = path_from_environment("PARO_CONFIG_DIR"); !own.empty()) return own;
#ifdef _WIN32
    const fs::path base = path_from_environment("APPDATA");
#elif defined(__APPLE__)
    const fs::path home = path_from_environment("HOME");
    const fs::path base = home.empty() ? home : home / "Library" / "Application Support";
#else
    fs::path base = path_from_environment("XDG_CONFIG_HOME");
    if (base.empty() && !path_from_environment("HOME").empty()) base = path_from_environment("HOME") / ".config";
#endif
    return base.empty() ? base : base / "paroattention";
}

Preferences parse_preferences(const std::string& text) {
    Preferences out;
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) return out;
    out.theme = member(json, "theme", out.theme, 2);
    out.overlay = member(json, "overlay", out.overlay, 4);
    out.palette = member(json, "palette", out.palette, 2);
    if (const auto log = json.find("log_scale"); log != json.end() && log->is_boolean()) out.log_scale = *log;
    if (const auto scale = json.find("ui_scale"); scale != json.end() && scale->is_number()) {
        const double value = scale->get<double>();
        if (value >= 0.5 && value <= 4.0) out.ui_scale = value;
    }
    if (const auto recent = json.find("recent"); recent != json.end() && recent->is_array()) {
        for (const auto& path : *recent) {
            if (path.is_string() && out.recent.size() < kMaxRecent)
                out.recent.push_back(path_of(path.get<std::string>()));
        }
    }
    return out;
}

std::string dump_preferences(const Preferences& preferences) {
    nlohmann::json json;
    json["theme"] = static_cast<int>(preferences.theme);
    json["overlay"] = static_cast<int>(preferences.overlay);
    json["palette"] = static_cast<int>(preferences.palette);
    json["log_scale"] = preferences.log_scale;
    json["ui_scale"] = preferences.ui_scale;
    json["recent"] = nlohmann::json::array();
    for (const fs::path& path : preferences.recent) json["recent"].push_back(utf8(path));
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

std::string read_setting(const fs::path& folder, const std::string& name) {
    // A pipe would keep the program waiting, a large file would fill the memory.
    std::error_code error;
    if (folder.empty() || !fs::is_regular_file(folder / name, error)) return {};
    if (const auto size = fs::file_size(folder / name, error); error || size > kMaxBytes) return {};
    std::ifstream file(folder / name, std::ios::binary);
    if (!file) return {};
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

void write_setting(const fs::path& folder, const std::string& name, const std::string& text) {
    require(!folder.empty(), "configuration folder", "must be known (set PARO_CONFIG_DIR or HOME)", "none");
    std::error_code error;
    fs::create_directories(folder, error);
    const fs::path temporary = folder / (name + ".new");
    {
        std::ofstream file(temporary, std::ios::binary);
        file << text;
        file.close();
        require(!file.fail(), utf8(temporary), "must be writable", std::strerror(errno));
    }
    fs::rename(temporary, folder / name, error);
    require(!error, utf8(folder / name), "must be writable", error.message());
}

Preferences load_preferences(const fs::path& folder) {
    return parse_preferences(read_setting(folder, kPreferencesName));
}

void save_preferences(const Preferences& preferences, const fs::path& folder) {
    write_setting(folder, kPreferencesName, dump_preferences(preferences));
}

}  // namespace paro::viewer
