// CPU attention on raw addresses: Python has checked dtype, device, shape and strides
// (paroattention/kernels/attention.py).
#include "bindings.h"
#include "paro/attention.h"

namespace paro::python {

namespace {

// Address and the strides of batch, head and token, in elements.
using View = std::tuple<std::uintptr_t, std::int64_t, std::int64_t, std::int64_t>;

TensorView input(const View& view) {
    return {reinterpret_cast<const void*>(std::get<0>(view)), std::get<1>(view), std::get<2>(view), std::get<3>(view)};
}

OutputView output(const View& view) {
    return {reinterpret_cast<void*>(std::get<0>(view)), std::get<1>(view), std::get<2>(view), std::get<3>(view)};
}

DType to_dtype(const std::string& name) {
    if (name == "float32") return DType::f32;
    if (name == "float16") return DType::f16;
    if (name == "bfloat16") return DType::bf16;
    fail("dtype", "must be float32, float16 or bfloat16", name);
}

Precision to_precision(const std::string& name) {
    if (name == "fp32") return Precision::fp32;
    if (name == "int8") return Precision::int8;
    fail("precision", "must be fp32 or int8", name);
}

Isa to_isa(const std::string& name) {
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni}) {
        if (to_string(isa) == name) return isa;
    }
    fail("isa", "must be scalar, avx2, avx512 or avx512_vnni", name);
}

}  // namespace

void bind_attention(py::module_& m) {
    m.def(
        "attention_cpu",
        [](const View& q, const View& k, const View& v, const View& o, const std::string& dtype, std::int32_t batch,
           std::int32_t heads, std::int32_t head_dim, const Plan& plan, float sm_scale, const std::string& precision,
           bool tail, int threads) {
            AttentionParams params{.q = input(q), .k = input(k), .v = input(v), .o = output(o)};
            params.dtype = to_dtype(dtype);
            params.batch = batch;
            params.heads = heads;
            params.head_dim = head_dim;
            params.sm_scale = sm_scale;
            params.plan = &plan;
            params.precision = to_precision(precision);
            params.tail = tail;
            params.threads = threads;
            py::gil_scoped_release release;
            attention_cpu(params);
        },
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("o"), py::kw_only(), py::arg("dtype"), py::arg("batch"),
        py::arg("heads"), py::arg("head_dim"), py::arg("plan"), py::arg("sm_scale"), py::arg("precision"),
        py::arg("tail"), py::arg("threads"));
    m.def("active_isa", [] { return std::string(to_string(active_isa())); });
    m.def("available_isas", [] {
        std::vector<std::string> names;
        for (const Isa isa : available_isas()) names.emplace_back(to_string(isa));
        return names;
    });
    m.def("set_isa", [](const std::string& name) { set_isa(to_isa(name)); });
}

}  // namespace paro::python
