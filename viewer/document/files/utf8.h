// Paths as UTF-8 text and back, on every system. What std::filesystem takes a narrow string for is the system's own
// code page on Windows, and with mingw each byte for a character of its own.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace paro::viewer {

inline std::string utf8(const std::filesystem::path& path) {
    const std::u8string text = path.u8string();
    return {text.begin(), text.end()};
}

inline std::filesystem::path path_of(std::string_view text) { return std::u8string(text.begin(), text.end()); }

// The program's arguments, without its name. On Windows those that main() is given are in the system's code page.
std::vector<std::string> arguments(int count, char** values);

// An environment variable that names a folder or file; empty where it is not set.
std::filesystem::path path_from_environment(const char* name);

}  // namespace paro::viewer
