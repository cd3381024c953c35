// What the chip does at best, each unit alone: the ceilings that a kernel is held against.
#pragma once

#include "watchdog.h"

namespace paro::cuda::bench {

// Prints clocks, operations a clock of a multiprocessor, bytes a second.
void measure_rates(Watchdog& watchdog);

}  // namespace paro::cuda::bench
