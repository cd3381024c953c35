// What a person could not read in the frame that was drawn last. It looks at what was sent to the graphics card, so
// nothing that draws text can be forgotten: widgets, plots and text drawn by hand are all seen.
#pragma once

#include <string>
#include <vector>

#include "panels/ui.h"

namespace paro::viewer {

// Letters that one call drew on one line.
struct DrawnText {
    std::string text;
    std::string window;      // that it was drawn in
    Rect ink;                // around its letters, in the frame's coordinates
    bool shortened = false;  // it ends in an ellipsis
};
// All texts that are seen: those under a dialog or a menu are not.
std::vector<DrawnText> drawn_texts();

// One sentence for every fault: texts that stand on each other, texts that something covers, texts that are cut off,
// and windows whose contents do not fit and cannot be scrolled to. may_scroll: places (anchors) of text fields, whose
// text the cursor scrolls. Call it between two frames.
std::vector<std::string> reading_faults(const std::vector<Rect>& may_scroll);

}  // namespace paro::viewer
