// Gains of keys by their place along each axis: what a kernel over offsets cannot tell.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "paro/offset_kernel.h"

namespace paro {

// The place among `places` that each index of a side belongs to.
std::vector<std::int32_t> places_of(std::int32_t side, std::int32_t places);

// Mean gain of the keys of every grid key block in an order; empty for a kernel without gains.
std::vector<float> block_gains(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_kv);

// Gains by which the kernel has its mass where the rows of these queries had it (mass by place of F, H and W, summed
// over the rows; the mean gain of an axis is 1), after what the offsets' own values must be multiplied by beside them:
// bins.codes() values, all 1 if there are no rows. kernel: offsets alone.
std::vector<float> fit_gains(const OffsetKernel& kernel, const Grid& grid, std::span<const std::int32_t> queries,
                             std::span<const double> mass);

}  // namespace paro
