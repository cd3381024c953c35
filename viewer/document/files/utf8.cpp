#include "document/files/utf8.h"

#include <cstdlib>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
// After windows.h, which it needs.
#include <shellapi.h>
#endif

namespace paro::viewer {
namespace {

// A UTF-16 string of Windows; `fs::path` is made of the same characters there.
#if defined(_WIN32)
std::string from_wide(const wchar_t* text) { return utf8(std::filesystem::path(text)); }
#endif

}  // namespace

std::vector<std::string> arguments([[maybe_unused]] int count, [[maybe_unused]] char** values) {
#if defined(_WIN32)
    std::vector<std::string> found;
    int wide_count = 0;
    wchar_t** wide = CommandLineToArgvW(GetCommandLineW(), &wide_count);
    for (int i = 1; wide != nullptr && i < wide_count; ++i) found.push_back(from_wide(wide[i]));
    if (wide != nullptr) LocalFree(wide);
    return found;
#else
    return {values + (count > 0 ? 1 : 0), values + count};
#endif
}

std::filesystem::path path_from_environment(const char* name) {
#if defined(_WIN32)
    const std::wstring wide(name, name + std::char_traits<char>::length(name));  // names are ASCII
    const wchar_t* value = _wgetenv(wide.c_str());
    return value != nullptr ? std::filesystem::path(value) : std::filesystem::path();
#else
    const char* value = std::getenv(name);
    return value != nullptr ? std::filesystem::path(value) : std::filesystem::path();
#endif
}

}  // namespace paro::viewer
