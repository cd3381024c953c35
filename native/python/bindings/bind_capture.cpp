// Captures: tensors cross as numpy arrays.
#include <map>
#include <utility>

#include "bindings.h"
#include "paro/capture.h"

namespace paro::python {

namespace {

struct TypeName {
    const char* safetensors;
    const char* numpy;
};
constexpr TypeName kTypes[] = {{"F16", "float16"}, {"I32", "int32"}, {"U8", "uint8"}};

// A tensor without its bytes, which lie in `dense`.
CaptureTensor header_of(const std::string& key, const py::array& dense) {
    const std::string name = py::str(dense.dtype().attr("name"));
    for (const TypeName& type : kTypes) {
        if (name == type.numpy) return {type.safetensors, {dense.shape(), dense.shape() + dense.ndim()}, {}};
    }
    fail(key, "must be float16, int32 or uint8", name);
}

void save(const std::filesystem::path& path, const Profile& profile, const std::map<std::string, py::array>& tensors) {
    Capture capture{{}, {}};
    std::vector<py::array> dense;
    std::vector<std::pair<CaptureTensor*, std::span<const std::uint8_t>>> bytes;
    for (const auto& [key, array] : tensors) {
        dense.push_back(py::array::ensure(array, py::array::c_style));
        CaptureTensor& tensor = capture.tensors.emplace(key, header_of(key, dense.back())).first->second;
        const auto* first = static_cast<const std::uint8_t*>(dense.back().data());
        bytes.push_back({&tensor, {first, static_cast<std::size_t>(dense.back().nbytes())}});
    }
    // Hundreds of megabytes, beside a run that needs the interpreter.
    const py::gil_scoped_release release;
    capture.profile = profile;
    for (const auto& [tensor, own] : bytes) tensor->bytes.assign(own.begin(), own.end());
    save_capture(capture, path);
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
    m.def("save_capture", &save, py::arg("path"), py::arg("profile"), py::arg("tensors"));
    m.def("load_capture", [](const std::filesystem::path& path) {
        const Capture capture = load_capture(path);
        py::dict tensors;
        for (const auto& [key, tensor] : capture.tensors) tensors[py::str(key)] = from_tensor(tensor);
        return py::make_tuple(capture.profile, tensors);
    });
}

}  // namespace paro::python
