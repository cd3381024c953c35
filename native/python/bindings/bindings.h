// Shared by the binding files of the module _core: conversions between numpy and the core's plain types.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "paro/error.h"
#include "paro/importance.h"
#include "paro/offset_kernel.h"
#include "paro/token_layout.h"

namespace paro::python {

namespace py = pybind11;

using GridTuple = std::tuple<std::int32_t, std::int32_t, std::int32_t>;
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;
using IndexArray = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;

// For a message.
inline std::string dimensions(const py::array& array) { return std::to_string(array.ndim()) + " dimensions"; }

inline Grid to_grid(const GridTuple& sides) {
    const Grid grid{std::get<0>(sides), std::get<1>(sides), std::get<2>(sides)};
    validate(grid);
    return grid;
}

inline GridTuple from_grid(const Grid& grid) { return {grid.f, grid.h, grid.w}; }

template <typename T, int Flags>
std::span<const T> view(const py::array_t<T, Flags>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

template <typename T>
py::array_t<T> to_numpy(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
    py::array_t<T> array(std::move(shape));
    std::copy(values.begin(), values.end(), array.mutable_data());
    return array;
}

// The same of one dimension, without a copy: the array keeps the vector.
template <typename T>
py::array_t<T> to_numpy(std::vector<T>&& values) {
    auto kept = std::make_unique<std::vector<T>>(std::move(values));
    const py::capsule owner(kept.get(), [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
    const std::vector<T>& own = *kept.release();
    return py::array_t<T>(static_cast<py::ssize_t>(own.size()), own.data(), owner);
}

inline OffsetKernel to_kernel(const Bins& bins, const FloatArray& values) {
    require(values.size() == bins.size(), "values", "must hold one value per bin, " + std::to_string(bins.size()),
            values.size());
    const auto span = view(values);
    return {bins, std::vector<float>(span.begin(), span.end())};
}

void bind_grid(py::module_& m);
void bind_importance(py::module_& m);
void bind_known(py::module_& m);
void bind_plan(py::module_& m);
void bind_plan_builder(py::module_& m);
void bind_paint(py::module_& m);
void bind_profile_merge(py::module_& m);
void bind_profile(py::module_& m);
void bind_capture(py::module_& m);
void bind_attention(py::module_& m);
void bind_plan_words(py::module_& m);

}  // namespace paro::python
