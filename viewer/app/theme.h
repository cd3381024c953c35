// Fonts, sizes and colours.
#pragma once

#include "document/files/preferences.h"

namespace paro::viewer {

// Once, after ImGui's context exists.
void load_font();
// Between frames. Our font has no Chinese, Japanese or Korean letters: when a text has asked for one, the system's font
// is read and takes part, once. PARO_VIEWER_FONT names another file.
void find_missing_letters();
// Everything that depends on theme and scale; cheap enough for any frame, done when one of them changes.
void apply_theme(Theme theme, float scale);

}  // namespace paro::viewer
