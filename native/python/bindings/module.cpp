// Python module paroattention._core: the C++ core without torch. Tensors cross as addresses (attention) or numpy
// arrays.
#include <exception>
#include <new>
#include <stdexcept>

#include "bindings.h"

namespace {

namespace py = pybind11;

// What pybind11 does with the standard exceptions, for this module alone. pybind11's own translators are shared by all
// modules of a process, of which each may hold a C++ runtime of its own: what is thrown here is caught here.
void translate_standard_exceptions(std::exception_ptr thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc& error) {
        PyErr_SetString(PyExc_MemoryError, error.what());
    } catch (const std::out_of_range& error) {
        PyErr_SetString(PyExc_IndexError, error.what());
    } catch (const std::overflow_error& error) {
        PyErr_SetString(PyExc_OverflowError, error.what());
    } catch (const std::logic_error& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::range_error& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    } catch (...) {
        PyErr_SetString(PyExc_RuntimeError, "paroattention: an exception of an unknown type");
    }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    using namespace paro::python;
    m.doc() = "C++ core of PAROAttention";
    m.attr("__version__") = PARO_VERSION;
    // ValueError is what Python callers expect of a bad argument; the message names argument, rule and value.
    // Of these two the one that is registered last is asked first.
    py::register_local_exception_translator(translate_standard_exceptions);
    py::register_local_exception<paro::Error>(m, "Error", PyExc_ValueError);
    bind_grid(m);
    bind_importance(m);
    bind_known(m);
    bind_plan(m);
    bind_plan_builder(m);
    bind_profile(m);
    bind_profile_merge(m);
    bind_paint(m);
    bind_capture(m);
    bind_attention(m);
    bind_plan_words(m);
}
