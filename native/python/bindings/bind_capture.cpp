// Captures: tensors cross as numpy arrays.
#include "bindings.h"
#include "paro/capture.h"

namespace paro::python {

namespace {

struct TypeName {
    const char* safetensors;
    const char* numpy;
};
constexpr TypeName kTypes[] = {{"F16", "float16"}, {"I32", "int32"}, {"U8", "uint8"}};

CaptureTensor to_tensor(const std::string& key, const py::array& array) {
    const std::string name = py::str(array.dtype().attr("name"));
    for (const TypeName& type : kTypes) {
        if (name != type.numpy) continue;
        const py::array dense = py::array::ensure(array, py::array::c_style);
        CaptureTensor tensor{type.safetensors, {dense.shape(), dense.shape() + dense.ndim()}, {}};
        const auto* bytes = static_cast<const std::uint8_t*>(dense.data());
        tensor.bytes.assign(bytes, bytes + dense.nbytes());
        return tensor;
    }
    fail(key, "must be float16, int32 or uint8", name);
}

py::array from_tensor(const CaptureTensor& tensor) {
    for (const TypeName& type : kTypes) {
        if (tensor.dtype != type.safetensors) continue;
        py::array array(py::dtype(type.numpy), tensor.shape);
        std::copy(tensor.bytes.begin(), tensor.bytes.end(), static_cast<std::uint8_t*>(array.mutable_data()));
        return array;
    }
    fail("dtype", "must be F16, I32 or U8", tensor.dtype);
}

}  // namespace

void bind_capture(py::module_& m) {
    m.def(
        "save_capture",
        [](const std::filesystem::path& path, const Profile& profile, const std::map<std::string, py::array>& tensors) {
            Capture capture{profile, {}};
            for (const auto& [key, array] : tensors) capture.tensors.emplace(key, to_tensor(key, array));
            py::gil_scoped_release release;
            save_capture(capture, path);
        },
        py::arg("path"), py::arg("profile"), py::arg("tensors"));
    m.def("load_capture", [](const std::filesystem::path& path) {
        const Capture capture = load_capture(path);
        py::dict tensors;
        for (const auto& [key, tensor] : capture.tensors) tensors[py::str(key)] = from_tensor(tensor);
        return py::make_tuple(capture.profile, tensors);
    });
}

}  // namespace paro::python
