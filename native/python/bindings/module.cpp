// Python module paroattention._core: the C++ core without torch. Tensors cross as addresses (attention) or numpy
// arrays.
#include "bindings.h"

PYBIND11_MODULE(_core, m) {
    using namespace paro::python;
    m.doc() = "C++ core of PAROAttention";
    m.attr("__version__") = PARO_VERSION;
    // ValueError is what Python callers expect of a bad argument; the message names argument, rule and value.
    py::register_exception<paro::Error>(m, "Error", PyExc_ValueError);
    bind_grid(m);
    bind_importance(m);
    bind_known(m);
    bind_plan(m);
    bind_plan_builder(m);
    bind_profile(m);
    bind_profile_merge(m);
    bind_capture(m);
    bind_attention(m);
    bind_plan_words(m);
}
