// Orders, layouts, bins, kernels and the accumulator.
#include <algorithm>
#include <memory>
#include <utility>

#include "bindings.h"
#include "paro/thread_pool.h"

namespace paro::python {

namespace {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;

// rows: [heads, queries, grid tokens]; one accumulator per head, heads in parallel.
void add_rows(const std::vector<OffsetAccumulator*>& accumulators, const IndexArray& queries, const FloatArray& rows,
              int threads) {
    require(rows.ndim() == 3, "rows", "must have the shape [heads, queries, grid tokens]", dimensions(rows));
    require(queries.ndim() == 2, "queries", "must have the shape [heads, queries]", dimensions(queries));
    const auto heads = static_cast<std::int64_t>(accumulators.size());
    require(rows.shape(0) == heads && queries.shape(0) == heads, "rows and queries",
            "must hold one entry per accumulator, " + std::to_string(heads),
            std::to_string(rows.shape(0)) + " and " + std::to_string(queries.shape(0)));
    require(rows.shape(1) == queries.shape(1), "rows",
            "must hold one row per query, " + std::to_string(queries.shape(1)), rows.shape(1));
    const std::int64_t count = rows.shape(1), width = rows.shape(2);
    const float* values = rows.data();
    const std::int32_t* places = queries.data();
    py::gil_scoped_release release;
    parallel_for(heads, threads, [&](std::int64_t head, int) {
        for (std::int64_t i = 0; i < count; ++i) {
            const float* row = values + (head * count + i) * width;
            accumulators[static_cast<std::size_t>(head)]->add_row(places[head * count + i],
                                                                  {row, static_cast<std::size_t>(width)});
        }
    });
}

// sum, pairs: [heads, bins]; rows: one a head. One accumulator per head, heads in parallel.
void add_sums(const std::vector<OffsetAccumulator*>& accumulators, const DoubleArray& sum, const DoubleArray& pairs,
              const std::vector<std::int64_t>& rows, int threads) {
    const std::size_t heads = accumulators.size();
    require(rows.size() == heads, "rows", "must hold one number for each of the " + std::to_string(heads) + " heads",
            rows.size());
    for (const auto& [name, array] : {std::pair{"sum", &sum}, std::pair{"pairs", &pairs}}) {
        require(array->ndim() == 2, name, "must have the shape [heads, bins]", dimensions(*array));
        require(array->shape(0) == static_cast<py::ssize_t>(heads), name,
                "must hold one row per accumulator, " + std::to_string(heads), array->shape(0));
    }
    const auto of = [](const DoubleArray& array, std::size_t head) {
        return view(array).subspan(head * static_cast<std::size_t>(array.shape(1)),
                                   static_cast<std::size_t>(array.shape(1)));
    };
    const py::gil_scoped_release release;
    parallel_for(static_cast<std::int64_t>(heads), threads, [&](std::int64_t index, int) {
        const auto head = static_cast<std::size_t>(index);
        accumulators[head]->add_sums(of(sum, head), of(pairs, head), rows[head]);
    });
}

// float32 [heads, values], all of the same bins.
py::array_t<float> kernels(const std::vector<const OffsetAccumulator*>& accumulators, int threads) {
    require(!accumulators.empty(), "accumulators", "must hold at least one head", accumulators.size());
    const Bins& bins = accumulators.front()->bins();
    for (const OffsetAccumulator* one : accumulators) {
        require(one->bins() == bins, "accumulators", "must share their bins", "different bins");
    }
    const auto heads = static_cast<std::int64_t>(accumulators.size());
    py::array_t<float> found({heads, bins.size()});
    float* values = found.mutable_data();
    const py::gil_scoped_release release;
    parallel_for(heads, threads, [&](std::int64_t head, int) {
        const OffsetKernel kernel = accumulators[static_cast<std::size_t>(head)]->kernel();
        std::copy(kernel.value.begin(), kernel.value.end(), values + head * bins.size());
    });
    return found;
}

py::array_t<double> doubles(const std::vector<double>& values) {
    return to_numpy(values, {static_cast<py::ssize_t>(values.size())});
}

void bind_bins(py::module_& m) {
    py::class_<Bins>(m, "Bins")
        .def(py::init([](std::vector<std::int32_t> f, std::vector<std::int32_t> h, std::vector<std::int32_t> w) {
                 Bins bins{{std::move(f)}, {std::move(h)}, {std::move(w)}};
                 validate(bins);
                 return bins;
             }),
             py::arg("F"), py::arg("H"), py::arg("W"))
        .def_static("even", [](const GridTuple& grid) { return Bins::even(to_grid(grid)); })
        .def_static("signed", [](const GridTuple& grid) { return Bins::signed_offsets(to_grid(grid)); })
        .def_property_readonly("F", [](const Bins& bins) { return bins.f.edges; })
        .def_property_readonly("H", [](const Bins& bins) { return bins.h.edges; })
        .def_property_readonly("W", [](const Bins& bins) { return bins.w.edges; })
        .def("index", &Bins::index)
        .def("__len__", &Bins::size)
        .def("__eq__", [](const Bins& a, const Bins& b) { return a == b; });
}

}  // namespace

void bind_grid(py::module_& m) {
    m.attr("ORDERS") = py::make_tuple("FHW", "FWH", "HFW", "HWF", "WFH", "WHF");
    m.def("permutation", [](const GridTuple& grid, const std::string& order) {
        const auto values = permutation(to_grid(grid), parse_axis_order(order));
        return to_numpy(values, {static_cast<py::ssize_t>(values.size())});
    });
    m.def("pack_index", [](std::int64_t prefix, const GridTuple& grid, std::int64_t suffix, const std::string& order,
                           std::int32_t block) {
        const auto values = pack_index({prefix, to_grid(grid), suffix}, parse_axis_order(order), block);
        return to_numpy(values, {static_cast<py::ssize_t>(values.size())});
    });
    bind_bins(m);
    m.def("quantise", [](const Bins& bins, const FloatArray& values) {
        const KernelCode code = quantise(to_kernel(bins, values));
        return py::make_tuple(py::bytes(reinterpret_cast<const char*>(code.code.data()), code.code.size()), code.peak);
    });
    m.def("dequantise", [](const Bins& bins, const std::string& code, float peak) {
        const OffsetKernel kernel = dequantise(bins, {std::vector<std::uint8_t>(code.begin(), code.end()), peak});
        return to_numpy(kernel.value, {static_cast<py::ssize_t>(kernel.value.size())});
    });
    py::class_<OffsetAccumulator>(m, "OffsetAccumulator")
        .def(py::init([](const Bins& bins, const GridTuple& grid) { return OffsetAccumulator(bins, to_grid(grid)); }))
        .def_property_readonly("rows", &OffsetAccumulator::rows)
        .def_property_readonly("grid", [](const OffsetAccumulator& self) { return from_grid(self.grid()); })
        .def("merge", &OffsetAccumulator::merge)
        .def(
            "add_sums",
            [](OffsetAccumulator& self, const DoubleArray& sum, const DoubleArray& pairs, std::int64_t rows) {
                self.add_sums(view(sum), view(pairs), rows);
            },
            py::arg("sum"), py::arg("pairs"), py::arg("rows"))
        .def_property_readonly("sum", [](const OffsetAccumulator& self) { return doubles(self.sum()); })
        .def_property_readonly("pairs", [](const OffsetAccumulator& self) { return doubles(self.pairs()); })
        .def("kernel", [](const OffsetAccumulator& self) {
            const OffsetKernel kernel = self.kernel();
            return to_numpy(kernel.value, {static_cast<py::ssize_t>(kernel.value.size())});
        });
    m.def("add_rows", &add_rows, py::arg("accumulators"), py::arg("queries"), py::arg("rows"), py::arg("threads") = 0);
    m.def("add_sums", &add_sums, py::arg("accumulators"), py::arg("sum"), py::arg("pairs"), py::arg("rows"),
          py::arg("threads") = 0, "OffsetAccumulator.add_sums of every head: sum, pairs [heads, bins], rows [heads].");
    m.def("kernels", &kernels, py::arg("accumulators"), py::arg("threads") = 0,
          "OffsetAccumulator.kernel of every head: float32 [heads, values].");
}

}  // namespace paro::python
