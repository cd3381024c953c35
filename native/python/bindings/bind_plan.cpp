// Plans.
#include "known_arrays.h"
#include "paro/plan.h"
#include "paro/profile_plan.h"

namespace paro::python {

namespace {

using Known = std::shared_ptr<KnownArrays>;

// work(profile, request, known) runs without the interpreter's lock.
template <typename Work>
void def_layer(py::module_& m, const char* name, Work work, const char* doc) {
    m.def(
        name,
        [work](const Profile& profile, std::size_t layer, std::size_t group, const GridTuple& grid, std::int64_t prefix,
               std::int64_t suffix, std::int32_t block_q, std::int32_t block_kv, double density, int threads,
               const Known& known, const std::vector<std::size_t>& heads) {
            const TokenLayout layout{prefix, to_grid(grid), suffix};
            const LayerRequest request{layer, group, layout, block_q, block_kv, density, threads, heads};
            const py::gil_scoped_release release;
            return work(profile, request, known ? known->known : KnownBlocks{});
        },
        py::arg("profile"), py::arg("layer"), py::arg("group"), py::arg("grid"), py::kw_only(), py::arg("prefix") = 0,
        py::arg("suffix") = 0, py::arg("block_q") = 64, py::arg("block_kv") = 64, py::arg("density") = 0.3,
        py::arg("threads") = 0, py::arg("known") = py::none(), py::arg("heads") = std::vector<std::size_t>{}, doc);
}

void bind_layer(py::module_& m) {
    def_layer(
        m, "plan_layer", [](const auto&... given) { return plan_layer(given...); },
        "The Plan of a layer, of the heads named or of all; known: KnownBlocks of all its heads.");
    def_layer(
        m, "plan_heads", [](const auto&... given) { return plan_heads(given...); },
        "The HeadPlans that plan_layer makes a Plan of.");
    def_layer(
        m, "layer_importance", [](const auto&... given) { return layer_importance(given...); },
        "The BlockMaps that plan_layer makes its masks from; density does not enter.");
}

}  // namespace

void bind_plan(py::module_& m) {
    py::class_<HeadPlan>(m, "HeadPlan")
        .def(py::init([](const std::string& order, const BlockMask& mask, double retained) {
                 return HeadPlan{parse_axis_order(order), mask, mask.density(), retained};
             }),
             py::arg("order"), py::arg("mask"), py::arg("retained") = 1.0)
        .def_property_readonly("order", [](const HeadPlan& head) { return std::string(to_string(head.order)); })
        .def_property_readonly("mask", [](const HeadPlan& head) -> const BlockMask& { return head.mask; })
        .def_property_readonly("density", [](const HeadPlan& head) { return head.mask.density(); })
        .def_property_readonly("retained", [](const HeadPlan& head) { return head.retained; });
    // Shared: a PlanBuilder hands out what it keeps itself. Nothing of a Plan can be changed from Python.
    py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
        .def(py::init([](const GridTuple& grid, std::int64_t prefix, std::int64_t suffix, std::int32_t block_q,
                         std::int32_t block_kv, std::vector<HeadPlan> heads) {
                 return make_plan({prefix, to_grid(grid), suffix}, block_q, block_kv, std::move(heads));
             }),
             py::arg("grid"), py::kw_only(), py::arg("prefix") = 0, py::arg("suffix") = 0, py::arg("block_q") = 64,
             py::arg("block_kv") = 64, py::arg("heads"))
        .def_property_readonly("grid", [](const Plan& plan) { return from_grid(plan.layout.grid); })
        .def_property_readonly("prefix", [](const Plan& plan) { return plan.layout.prefix; })
        .def_property_readonly("suffix", [](const Plan& plan) { return plan.layout.suffix; })
        .def_property_readonly("length", [](const Plan& plan) { return plan.layout.length(); })
        .def_property_readonly("block_q", [](const Plan& plan) { return plan.block_q; })
        .def_property_readonly("block_kv", [](const Plan& plan) { return plan.block_kv; })
        // The plan's own, which keep it: nothing is copied.
        .def_property_readonly("heads", [](const Plan& plan) -> const std::vector<HeadPlan>& { return plan.heads; })
        .def_property_readonly("orders",
                               [](const Plan& plan) {
                                   std::vector<std::string> orders;
                                   for (const HeadPlan& head : plan.heads) orders.emplace_back(to_string(head.order));
                                   return orders;
                               })
        .def_property_readonly("head_count", [](const Plan& plan) { return plan.heads.size(); })
        .def_readonly("density", &Plan::density)
        .def_readonly("density_total", &Plan::density_total)
        .def_readonly("retained", &Plan::retained);
    m.def("plan_head", py::overload_cast<const BlockMap&, double>(&plan_head), py::arg("map"), py::arg("density"),
          py::call_guard<py::gil_scoped_release>());
    bind_layer(m);
    m.def(
        "build_heads",
        [](const Bins& bins, const std::vector<std::vector<FloatArray>>& heads, const GridTuple& grid, double density,
           const std::vector<std::optional<std::string>>& orders, int threads) {
            std::vector<std::vector<OffsetKernel>> kernels(heads.size());
            for (std::size_t i = 0; i < heads.size(); ++i) {
                for (const FloatArray& values : heads[i]) kernels[i].push_back(to_kernel(bins, values));
            }
            std::vector<std::optional<AxisOrder>> fixed;
            for (const auto& order : orders) {
                fixed.push_back(order ? std::optional(parse_axis_order(*order)) : std::nullopt);
            }
            std::vector<ProfileHead> built;
            py::gil_scoped_release release;
            for (BuiltHead& head : build_heads(kernels, to_grid(grid), density, fixed, threads)) {
                built.push_back(std::move(head.head));
            }
            return built;
        },
        py::arg("bins"), py::arg("heads"), py::arg("grid"), py::arg("density"),
        py::arg("orders") = std::vector<std::optional<std::string>>{}, py::arg("threads") = 0,
        "ProfileHeads from kernels heads[head][group], in parallel. orders: empty, or one or None per head.");
    m.def(
        "build_head",
        [](const Bins& bins, const std::vector<FloatArray>& groups, const GridTuple& grid, double density,
           const std::optional<std::string>& order) {
            std::vector<OffsetKernel> kernels;
            for (const FloatArray& values : groups) kernels.push_back(to_kernel(bins, values));
            std::optional<AxisOrder> fixed;
            if (order) fixed = parse_axis_order(*order);
            py::gil_scoped_release release;
            BuiltHead built = build_head(kernels, to_grid(grid), density, fixed);
            py::gil_scoped_acquire acquire;
            py::dict retained;
            for (std::size_t i = 0; i < 6; ++i) {
                retained[py::str(std::string(to_string(kAxisOrders[i])))] = built.retained[i];
            }
            return py::make_tuple(std::move(built.head), retained);
        },
        py::arg("bins"), py::arg("groups"), py::arg("grid"), py::arg("density"), py::arg("order") = py::none(),
        "(ProfileHead, retained mass by order) from one kernel per timestep group.");
}

}  // namespace paro::python
