// Block maps, masks and the choice of orders.
#include "bindings.h"
#include "paro/order_select.h"

namespace paro::python {

namespace {

py::array_t<bool> mask_array(const BlockMask& mask) {
    py::array_t<bool> array({mask.rows(), mask.cols()});
    bool* out = array.mutable_data();
    for (std::int64_t row = 0; row < mask.rows(); ++row) {
        const std::uint32_t* words = mask.row(row);
        for (std::int64_t col = 0; col < mask.cols(); ++col) *out++ = (words[col / 32] >> (col % 32)) & 1u;
    }
    return array;
}

// The mask's own memory, which `owner` keeps.
py::array_t<std::uint32_t> mask_words(const py::object& owner) {
    const auto& mask = owner.cast<const BlockMask&>();
    py::array_t<std::uint32_t> array({mask.rows(), mask.words_per_row()}, mask.words().data(), owner);
    array.attr("setflags")(py::arg("write") = false);
    return array;
}

BlockMask mask_from_array(const py::array_t<bool, py::array::c_style | py::array::forcecast>& array) {
    require(array.ndim() == 2, "mask", "must have two dimensions", array.ndim());
    BlockMask mask(array.shape(0), array.shape(1));
    const auto in = array.unchecked<2>();
    for (py::ssize_t row = 0; row < array.shape(0); ++row) {
        for (py::ssize_t col = 0; col < array.shape(1); ++col) mask.set(row, col, in(row, col));
    }
    return mask;
}

py::dict scores_dict(const OrderScores& scores) {
    py::dict retained;
    for (std::size_t i = 0; i < kAxisOrders.size(); ++i) {
        retained[py::str(std::string(to_string(kAxisOrders[i])))] = scores.retained[i];
    }
    py::dict result;
    result["retained"] = retained;
    result["order"] = std::string(to_string(scores.by_retained_mass));
    return result;
}

py::tuple metric_tuple(const PaperMetric& metric) { return py::make_tuple(metric.sparsity, metric.incoherence); }

void bind_orders(py::module_& m) {
    m.def("score_order_maps", [](const std::vector<BlockMap>& maps, double density) {
        return scores_dict(score_orders(std::span<const BlockMap>(maps), density));
    });
    m.def("paper_metric", [](const Bins& bins, const FloatArray& values, const GridTuple& grid,
                             const std::string& order, std::int32_t block) {
        return metric_tuple(paper_metric(to_kernel(bins, values), to_grid(grid), parse_axis_order(order), block));
    });
    m.def(
        "select_by_paper_metric",
        [](const std::vector<std::pair<double, double>>& metrics, double alpha) {
            require(metrics.size() == 6, "metrics", "must hold six pairs", metrics.size());
            std::array<PaperMetric, 6> six;
            for (std::size_t i = 0; i < 6; ++i) six[i] = {metrics[i].first, metrics[i].second};
            return std::string(to_string(select_by_paper_metric(six, alpha)));
        },
        py::arg("metrics"), py::arg("alpha") = 0.5);
}

}  // namespace

void bind_importance(py::module_& m) {
    py::class_<BlockMask>(m, "BlockMask")
        .def(py::init(&mask_from_array))
        .def_property_readonly("rows", &BlockMask::rows)
        .def_property_readonly("cols", &BlockMask::cols)
        .def_property_readonly("density", &BlockMask::density)
        .def("count", &BlockMask::count)
        .def("numpy", &mask_array, "bool [rows, cols], a new array at each call.")
        .def_property_readonly("words", &mask_words,
                               "uint32 [rows, words], read only: bit c % 32 of word c / 32 is block c.");
    py::class_<BlockMap>(m, "BlockMap")
        .def_property_readonly("order", [](const BlockMap& map) { return std::string(to_string(map.order)); })
        .def_property_readonly("block_q", [](const BlockMap& map) { return map.block_q; })
        .def_property_readonly("block_kv", [](const BlockMap& map) { return map.block_kv; })
        .def_property_readonly("total", &BlockMap::total)
        .def("numpy", [](const BlockMap& map) {
            return to_numpy(map.value, {map.rows, map.cols});
        });
    m.def("empty_map",
          [](const GridTuple& grid, const std::string& order, std::int32_t block_q, std::int32_t block_kv) {
              return empty_map(to_grid(grid), parse_axis_order(order), block_q, block_kv);
          });
    m.def("importance", [](const Bins& bins, const FloatArray& values, const GridTuple& grid, const std::string& order,
                           std::int32_t block_q, std::int32_t block_kv) {
        const OffsetKernel kernel = to_kernel(bins, values);
        py::gil_scoped_release release;
        return importance(kernel, to_grid(grid), parse_axis_order(order), block_q, block_kv);
    });
    m.def(
        "accumulate_rows",
        [](BlockMap& map, const GridTuple& grid, const IndexArray& queries, const FloatArray& rows) {
            const auto places = view(queries);
            const auto values = view(rows);
            py::gil_scoped_release release;
            accumulate_rows(map, to_grid(grid), places, values);
        },
        py::arg("map"), py::arg("grid"), py::arg("queries"), py::arg("rows"));
    m.def("make_mask", &make_mask, py::arg("map"), py::arg("density"), py::call_guard<py::gil_scoped_release>());
    m.def("retained_mass", &retained_mass, py::arg("map"), py::arg("mask"), py::call_guard<py::gil_scoped_release>());
    bind_orders(m);
}

}  // namespace paro::python
