// Fonts, sizes and colours.
#pragma once

#include "document/preferences.h"

namespace paro::viewer {

// Once, after ImGui's context exists.
void load_font();
// Everything that depends on theme and scale; cheap enough for any frame, done when one of them changes.
void apply_theme(Theme theme, float scale);

}  // namespace paro::viewer
