#include "app/script_keys.h"

#include <map>
#include <sstream>

#include "paro/error.h"

namespace paro::viewer {

std::vector<ImGuiKey> parse_chord(const std::string& text) {
    static const std::map<std::string, std::vector<ImGuiKey>> kNames = {
        {"ctrl", {ImGuiMod_Ctrl, ImGuiKey_LeftCtrl}},
        {"shift", {ImGuiMod_Shift, ImGuiKey_LeftShift}},
        {"alt", {ImGuiMod_Alt, ImGuiKey_LeftAlt}},
        {"left", {ImGuiKey_LeftArrow}},
        {"right", {ImGuiKey_RightArrow}},
        {"up", {ImGuiKey_UpArrow}},
        {"down", {ImGuiKey_DownArrow}},
        {"enter", {ImGuiKey_Enter}},
        {"escape", {ImGuiKey_Escape}},
        {"tab", {ImGuiKey_Tab}},
        {"delete", {ImGuiKey_Delete}},
        {"backspace", {ImGuiKey_Backspace}},
        {"[", {ImGuiKey_LeftBracket}},
        {"]", {ImGuiKey_RightBracket}},
        {"f1", {ImGuiKey_F1}},
    };
    std::vector<ImGuiKey> keys;
    std::istringstream stream(text);
    for (std::string name; std::getline(stream, name, '+');) {
        const auto found = kNames.find(name);
        if (found != kNames.end()) {
            keys.insert(keys.end(), found->second.begin(), found->second.end());
        } else if (name.size() == 1 && name[0] >= 'a' && name[0] <= 'z') {
            keys.push_back(static_cast<ImGuiKey>(ImGuiKey_A + (name[0] - 'a')));
        } else {
            fail("key", "must be a letter or one of ctrl, shift, alt, arrows, enter, escape, tab, f1, [ and ]", name);
        }
    }
    return keys;
}

}  // namespace paro::viewer
