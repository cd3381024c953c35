// What is known of a layer's blocks beside its kernels.
#include "known_arrays.h"

namespace paro::python {

namespace {

using LongArray = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;

// Strict, since a converted copy would go stale: the arrays are read while plans are built.
template <typename T>
std::span<const T> values(const std::string& name, const py::array& array, int rank, const char* type) {
    if (!py::isinstance<py::array_t<T>>(array)) {
        fail(name, std::string("must be ") + type, std::string(py::str(array.dtype())));
    }
    require(array.ndim() == rank, name, "must have " + std::to_string(rank) + " dimensions", array.ndim());
    require((array.flags() & py::array::c_style) != 0, name, "must be contiguous", "an array with gaps");
    return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

std::shared_ptr<KnownArrays> known_arrays(const std::optional<py::array>& sums, const std::optional<py::array>& counts,
                                          float prior, const std::vector<std::optional<py::array>>& exact,
                                          float exact_prior, std::int32_t pool_q, std::int32_t pool_kv) {
    require(sums.has_value() == counts.has_value(), "counts", "must come with sums",
            sums ? "sums alone" : "counts alone");
    auto result = std::make_shared<KnownArrays>();
    KnownBlocks& known = result->known;
    if (sums) {
        known.sums = values<float>("sums", *sums, 3, "float32");
        known.counts = values<float>("counts", *counts, 2, "float32");
        const auto text = [](const py::array& array) {
            return std::to_string(array.shape(0)) + " x " + std::to_string(array.shape(1));
        };
        require(text(*counts) == text(*sums), "counts", "must have the heads and rows of sums, " + text(*sums),
                text(*counts));
        result->kept = {*sums, *counts};
    }
    known.prior = prior;
    known.exact_prior = exact_prior;
    known.pool_q = pool_q;
    known.pool_kv = pool_kv;
    for (std::size_t head = 0; head < exact.size(); ++head) {
        known.exact.emplace_back();
        if (!exact[head]) continue;
        const std::string name = "exact[" + std::to_string(head) + "]";
        known.exact.back() = values<std::uint8_t>(name, *exact[head], 2, "uint8");
        require(exact[head]->shape(0) == exact[head]->shape(1), name, "must be square",
                std::to_string(exact[head]->shape(0)) + " x " + std::to_string(exact[head]->shape(1)));
        result->kept.push_back(*exact[head]);
    }
    return result;
}

// Writable: the memory that was given is added to.
std::span<float> added_to(const std::string& name, const py::array& array) {
    const std::span<const float> found = values<float>(name, array, static_cast<int>(array.ndim()), "float32");
    require(array.writeable(), name, "must be writable", "read-only memory");
    return {const_cast<float*>(found.data()), found.size()};
}

void add_samples(const py::array& sums, const py::array& counts, const LongArray& rows, const FloatArray& samples) {
    const std::span<float> sum = added_to("sums", sums), count = added_to("counts", counts);
    const std::span<const std::int64_t> where{rows.data(), static_cast<std::size_t>(rows.size())};
    const std::span<const float> value{samples.data(), static_cast<std::size_t>(samples.size())};
    const py::gil_scoped_release release;
    paro::add_samples(sum, count, where, value);
}

}  // namespace

void bind_known(py::module_& m) {
    py::class_<KnownArrays, std::shared_ptr<KnownArrays>>(
        m, "KnownBlocks",
        "What is known of one layer's blocks beside its kernels, in the heads' own orders. The arrays are not copied.\n"
        "sums float32 [heads, rows, cols], counts float32 [heads, rows]: softmax rows that samples saw, by block, and\n"
        "their number; the map of a head's kernel counts as `prior` of them a tile. exact: by head uint8 [cells, "
        "cells]\n"
        "as a capture holds it, or None; such a map counts as `exact_prior` samples a tile. pool_q, pool_kv: tiles of "
        "a\n"
        "mask that a row of sums takes together, and key blocks that a column does.")
        .def(py::init(&known_arrays), py::kw_only(), py::arg("sums") = py::none(), py::arg("counts") = py::none(),
             py::arg("prior") = 0.0f, py::arg("exact") = std::vector<std::optional<py::array>>{},
             py::arg("exact_prior") = 0.0f, py::arg("pool_q") = 1, py::arg("pool_kv") = 1);
    m.def("add_samples", &add_samples, py::arg("sums"), py::arg("counts"), py::arg("rows"), py::arg("values"),
          "Adds sampled rows to what samples saw, in place. sums float32 [.., cols], counts float32 [..]: of all rows; "
          "rows int64 [n]: where values float32 [n, cols] belong. Releases the GIL.");
}

}  // namespace paro::python
