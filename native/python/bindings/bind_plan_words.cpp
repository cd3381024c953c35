// Plans as words for a GPU, and the limits of what the kernels take.
#include "bindings.h"
#include "paro/limits.h"
#include "paro/plan.h"
#include "paro/plan_words.h"

namespace paro::python {

void bind_plan_words(py::module_& m) {
    m.attr("HEAD_DIMS") = py::tuple(py::cast(kHeadDims));
    m.attr("TILES") = py::tuple(py::cast(kTiles));
    m.attr("MAX_BLOCK") = kMaxBlock;
    py::class_<PlanWords>(
        m, "PlanWords",
        "Where the parts of a plan's int32 words begin: orders [heads], schedule [heads, rows], masks\n"
        "[heads, rows, mask_words]; rows and cols are blocks of the grid. count: words in all.")
        .def(py::init<std::int64_t, std::int64_t, std::int64_t>(), py::arg("heads"), py::arg("rows"), py::arg("cols"))
        .def(py::init(&plan_layout), py::arg("plan"))
        .def_readonly("heads", &PlanWords::heads)
        .def_readonly("rows", &PlanWords::rows)
        .def_readonly("cols", &PlanWords::cols)
        .def_property_readonly("mask_words", &PlanWords::mask_words)
        .def_property_readonly("orders", &PlanWords::orders)
        .def_property_readonly("schedule", &PlanWords::schedule)
        .def_property_readonly("masks", &PlanWords::masks)
        .def_property_readonly("count", &PlanWords::count);
    m.def(
        "plan_words", [](const Plan& plan) { return to_numpy(plan_words(plan)); }, py::arg("plan"),
        "The plan's words, int32: a new array at each call.");
}

}  // namespace paro::python
