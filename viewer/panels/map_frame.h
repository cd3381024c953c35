// One block map on the screen: pixels, text blocks around them, zoom, pan, and what lies under the mouse.
#pragma once

#include "panels/ui.h"

namespace paro::viewer {

struct MapFrame {
    Ui& ui;
    AxisOrder order;
    ImVec2 min;
    float side;
    bool exact_rows;

    void draw();
    // For the item that was submitted last: wheel zooms, dragging pans, a double click enlarges, hovering explains.
    void interact();

   private:
    // Blocks along a side: text before, grid, text after. Rows are sampled queries where exact rows are shown.
    struct Extent {
        std::int64_t before = 0, grid = 0, after = 0;
        std::int64_t all() const { return before + grid + after; }
    };
    Extent extent(bool rows) const;
    const OrderMap* map() const;
    void draw_text_blocks();
    void explain(double x, double y);
};

}  // namespace paro::viewer
