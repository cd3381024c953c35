// KnownBlocks of numpy arrays.
#pragma once

#include <memory>
#include <optional>

#include "bindings.h"
#include "paro/known_blocks.h"

namespace paro::python {

// Keeps the arrays that `known` points into.
struct KnownArrays {
    KnownBlocks known;
    std::vector<py::array> kept;
};

}  // namespace paro::python
