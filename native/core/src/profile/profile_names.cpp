// Names of profiles: what is safe as the name of a file on every system.
#include <algorithm>
#include <array>
#include <utility>

#include "files/text.h"
#include "paro/error.h"
#include "paro/profile.h"

namespace paro {
namespace {

constexpr std::string_view kForbidden = "<>:\"/\\|?*";  // by Windows

// Nothing is drawn for these, so two names with and without one look the same.
bool is_invisible(char32_t code) {
    constexpr std::array<std::pair<char32_t, char32_t>, 11> kRanges = {{{0xAD, 0xAD},
                                                                        {0x34F, 0x34F},
                                                                        {0x115F, 0x1160},
                                                                        {0x17B4, 0x17B5},
                                                                        {0x180B, 0x180F},
                                                                        {0x3164, 0x3164},
                                                                        {0xFFA0, 0xFFA0},
                                                                        {0xFFF0, 0xFFFB},
                                                                        {0x1BCA0, 0x1BCA3},
                                                                        {0x1D173, 0x1D17A},
                                                                        {0xE0000, 0xE0FFF}}};
    const auto holds = [code](const auto& range) { return code >= range.first && code <= range.second; };
    const bool no_character = (code >= 0xFDD0 && code <= 0xFDEF) || (code & 0xFFFE) == 0xFFFE;
    return no_character || std::ranges::any_of(kRanges, holds);
}

// Windows takes a device's name for the device whatever the extension, and so with spaces before it.
bool is_device(std::string_view name) {
    std::string stem(name.substr(0, name.find('.')));
    while (stem.ends_with(' ')) stem.pop_back();
    for (char& c : stem) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    if (stem == "CON" || stem == "PRN" || stem == "AUX" || stem == "NUL") return true;
    if (stem == "CONIN$" || stem == "CONOUT$") return true;
    if (!stem.starts_with("COM") && !stem.starts_with("LPT")) return false;
    const std::string_view number = std::string_view(stem).substr(3);
    if (number.size() == 1) return number[0] >= '0' && number[0] <= '9';
    return number == "\u00B9" || number == "\u00B2" || number == "\u00B3";  // superscripts count as well
}

static_assert(kMaxProfileName == 235);

}  // namespace

std::string_view profile_name_rule(std::string_view name) {
    if (name.empty()) return "must not be empty";
    for (std::size_t at = 0; at < name.size();) {
        char32_t code = 0;
        const std::size_t length = detail::decode_utf8(name, at, code);
        if (length == 0) return "must be valid Unicode text";
        if (!detail::is_printable(code)) return "must hold no control or invisible characters";
        if (is_invisible(code)) return "must hold no invisible characters";
        if (code < 0x80 && kForbidden.find(static_cast<char>(code)) != kForbidden.npos) {
            return "must hold none of <>:\"/\\|?*";
        }
        at += length;
    }
    if (name.front() == '.') return "must not start with a dot";
    if (name.back() == '.' || name.back() == ' ') return "must not end with a dot or space";
    if (is_device(name)) return "must not be a device name of Windows";
    if (name.size() > kMaxProfileName) return "must not be longer than 235 bytes of UTF-8";
    return {};
}

void validate_profile_name(std::string_view name) {
    const std::string_view rule = profile_name_rule(name);
    if (rule.empty()) return;
    const std::string would_do = suggest_profile_name(name);
    throw Error("profile name " + std::string(rule) + " (got \"" + detail::clean(name) + "\"): \"" +
                detail::clean(would_do) + "\" would do");
}

std::string suggest_profile_name(std::string_view name) {
    std::string out;
    for (std::size_t at = 0; at < name.size();) {
        char32_t code = 0;
        const std::size_t length = detail::decode_utf8(name, at, code);
        const bool forbidden =
            length == 0 || code < 0x20 || (code < 0x80 && kForbidden.find(static_cast<char>(code)) != kForbidden.npos);
        const bool kept = !forbidden && detail::is_printable(code) && !is_invisible(code);
        const std::string_view piece = kept ? name.substr(at, length) : forbidden ? "_" : "";
        if (out.size() + piece.size() > kMaxProfileName) break;
        // One sign for a run of them.
        if (!(forbidden && out.ends_with('_'))) out += piece;
        at += length != 0 ? length : 1;
    }
    out.erase(0, std::min(out.find_first_not_of('.'), out.size()));
    while (out.ends_with('.') || out.ends_with(' ')) out.pop_back();
    if (out.empty()) return "profile";
    return is_device(out) ? suggest_profile_name("_" + out) : out;
}

}  // namespace paro
