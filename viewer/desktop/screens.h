// The desktop's screens.
#pragma once

#include <memory>

#include "app/screen.h"

namespace paro::viewer {

std::unique_ptr<Screen> make_window(const ScreenOptions& options);
std::unique_ptr<Screen> make_headless(const ScreenOptions& options);

}  // namespace paro::viewer
