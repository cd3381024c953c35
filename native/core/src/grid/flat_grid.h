// A grid seen in one axis order, and its blocks cut into boxes: shared by importance and the paper's metric.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "paro/axis_order.h"
#include "paro/offset_kernel.h"

namespace paro {

// Axes slowest first. Axes of side 1 come first (in the order F, H, W): where they stand changes nothing, and runs
// along the fastest axis stay long. Two orders that flatten a grid alike thus have equal axes.
inline std::array<int, 3> flattened_axes(const Grid& grid, AxisOrder order) {
    const std::array<std::int32_t, 3> sides = grid.sides();
    std::array<int, 3> result{};
    int next = 0;
    for (int axis = 0; axis < 3; ++axis) {
        if (sides[axis] == 1) result[next++] = axis;
    }
    for (const int axis : axes(order)) {
        if (sides[axis] > 1) result[next++] = axis;
    }
    return result;
}

// A grid as planes x lines x tokens along the fastest axis.
struct FlatGrid {
    std::array<int, 3> axis{};
    std::int64_t planes = 1, lines = 1, length = 1;

    FlatGrid(const Grid& grid, AxisOrder order) : axis(flattened_axes(grid, order)) {
        planes = grid.sides()[axis[0]];
        lines = grid.sides()[axis[1]];
        length = grid.sides()[axis[2]];
    }
    std::int64_t size() const { return planes * lines * length; }
};

// Tokens begin..end of each of the lines line_begin..line_end of one plane.
struct Box {
    std::int64_t plane, line_begin, line_end, begin, end;
};

// The fewest boxes that hold the consecutive tokens first..last (exclusive).
inline std::vector<Box> boxes_of(const FlatGrid& grid, std::int64_t first, std::int64_t last) {
    std::vector<Box> boxes;
    while (first < last) {
        const std::int64_t line = first / grid.length, at = first % grid.length;
        const std::int64_t plane = line / grid.lines, row = line % grid.lines;
        std::int64_t rows = 1, end = std::min(grid.length, at + last - first);
        if (at == 0 && end == grid.length) rows = std::min((last - first) / grid.length, grid.lines - row);
        boxes.push_back({plane, row, row + rows, at, end});
        first += rows * (end - at);
    }
    return boxes;
}

// bin(offset) of one axis for every offset -(size - 1) .. size - 1, looked up instead of searched.
class BinTable {
   public:
    BinTable(const AxisBins& bins, std::int64_t size) : zero_(size - 1) {
        table_.reserve(static_cast<std::size_t>(2 * size - 1));
        for (std::int64_t offset = -zero_; offset <= zero_; ++offset) {
            table_.push_back(bins.bin(static_cast<std::int32_t>(offset)));
        }
    }
    std::int32_t operator[](std::int64_t offset) const { return table_[offset + zero_]; }

   private:
    std::int64_t zero_;
    std::vector<std::int32_t> table_;
};

// An axis' bins and where a step of one bin leads in a kernel's values.
struct KernelAxis {
    const AxisBins* bins;
    std::int64_t stride;
};

inline KernelAxis kernel_axis(const OffsetKernel& kernel, int axis) {
    const std::int64_t w = kernel.bins.w.count(), h = kernel.bins.h.count();
    if (axis == 0) return {&kernel.bins.f, h * w};
    if (axis == 1) return {&kernel.bins.h, w};
    return {&kernel.bins.w, 1};
}

}  // namespace paro
