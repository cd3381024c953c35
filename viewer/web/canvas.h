// The page's canvas by WebGL 2, and what the page tells of mouse, keys and size.
#pragma once

#include <memory>
#include <string>

#include "app/screen.h"

namespace paro::viewer {

class Canvas : public Screen {
   public:
    // In the canvas' own pixels; scale: of them in one of the page's.
    virtual void set_size(int width, int height, float scale) = 0;
    virtual void set_clipboard(const std::string& text) = 0;
};

std::unique_ptr<Canvas> make_canvas();

// A key by its name in the page's events ("a", "ArrowLeft"); unknown ones are left out. Modifiers: 1 control, 2 shift,
// 4 alt, 8 command.
void add_key(const std::string& name, int modifiers, bool down);

}  // namespace paro::viewer
