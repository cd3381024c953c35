// Key chords as scripts write them: "ctrl+shift+s", "right", "f1".
#pragma once

#include <string>
#include <vector>

#include "imgui.h"

namespace paro::viewer {

// Modifiers first, as they are pressed. Throws Error for a name that is no key.
std::vector<ImGuiKey> parse_chord(const std::string& text);

}  // namespace paro::viewer
