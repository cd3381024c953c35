// The page's names of keys.
#include <map>
#include <string_view>

#include "imgui.h"
#include "web/canvas.h"

namespace paro::viewer {

namespace {

ImGuiKey key_of(const std::string& name) {
    static const std::map<std::string_view, ImGuiKey> kNames = {
        {"ArrowLeft", ImGuiKey_LeftArrow},
        {"ArrowRight", ImGuiKey_RightArrow},
        {"ArrowUp", ImGuiKey_UpArrow},
        {"ArrowDown", ImGuiKey_DownArrow},
        {"Enter", ImGuiKey_Enter},
        {"Escape", ImGuiKey_Escape},
        {"Tab", ImGuiKey_Tab},
        {"Backspace", ImGuiKey_Backspace},
        {"Delete", ImGuiKey_Delete},
        {"Insert", ImGuiKey_Insert},
        {"Home", ImGuiKey_Home},
        {"End", ImGuiKey_End},
        {"PageUp", ImGuiKey_PageUp},
        {"PageDown", ImGuiKey_PageDown},
        {" ", ImGuiKey_Space},
        {"[", ImGuiKey_LeftBracket},
        {"]", ImGuiKey_RightBracket},
        {"-", ImGuiKey_Minus},
        {"=", ImGuiKey_Equal},
        {",", ImGuiKey_Comma},
        {".", ImGuiKey_Period},
        {"F1", ImGuiKey_F1},
        {"Control", ImGuiKey_LeftCtrl},
        {"Shift", ImGuiKey_LeftShift},
        {"Alt", ImGuiKey_LeftAlt},
        {"Meta", ImGuiKey_LeftSuper},
    };
    if (name.size() == 1) {
        const char letter = name[0];
        if (letter >= 'a' && letter <= 'z') return static_cast<ImGuiKey>(ImGuiKey_A + (letter - 'a'));
        if (letter >= 'A' && letter <= 'Z') return static_cast<ImGuiKey>(ImGuiKey_A + (letter - 'A'));
        if (letter >= '0' && letter <= '9') return static_cast<ImGuiKey>(ImGuiKey_0 + (letter - '0'));
    }
    const auto found = kNames.find(name);
    return found == kNames.end() ? ImGuiKey_None : found->second;
}

}  // namespace

void add_key(const std::string& name, int modifiers, bool down) {
    ImGuiIO& io = ImGui::GetIO();
    io.AddKeyEvent(ImGuiMod_Ctrl, (modifiers & 1) != 0);
    io.AddKeyEvent(ImGuiMod_Shift, (modifiers & 2) != 0);
    io.AddKeyEvent(ImGuiMod_Alt, (modifiers & 4) != 0);
    io.AddKeyEvent(ImGuiMod_Super, (modifiers & 8) != 0);
    if (const ImGuiKey key = key_of(name); key != ImGuiKey_None) io.AddKeyEvent(key, down);
}

}  // namespace paro::viewer
