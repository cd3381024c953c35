// Profiles merged, renewed and compared.
#include "bindings.h"
#include "paro/profile_diff.h"
#include "paro/profile_merge.h"

namespace paro::python {

namespace {

using Accumulators = std::vector<const OffsetAccumulator*>;

Profile renewed(const Profile& profile, std::size_t group,
                const std::map<std::string, std::vector<std::pair<Accumulators, double>>>& samples, float prior,
                int threads) {
    std::vector<LayerSamples> given;
    for (std::size_t layer = 0; layer < profile.layers.size(); ++layer) {
        const auto own = samples.find(profile.layers[layer].id);
        if (own == samples.end()) continue;
        given.push_back({layer, {}});
        for (const auto& [heads, weight] : own->second) given.back().groups.push_back({heads, weight});
    }
    const py::gil_scoped_release release;
    return renew_profile(profile, group, given, prior, threads);
}

void bind_diff(py::module_& m) {
    m.def("diff_profiles", &diff_profiles, py::arg("a"), py::arg("b"), py::arg("block") = 64, py::arg("threads") = 0,
          py::call_guard<py::gil_scoped_release>(), "ProfileDiff of two profiles, on a's first grid.");
    using Kept = ProfileDiff::Kept;
    using Head = ProfileDiff::Head;
    const auto name = [](AxisOrder order) { return std::string(to_string(order)); };
    py::class_<Kept>(m, "KeptDiff")
        .def_readonly("a_by_a", &Kept::a_by_a)
        .def_readonly("a_by_b", &Kept::a_by_b)
        .def_readonly("b_by_b", &Kept::b_by_b)
        .def_readonly("b_by_a", &Kept::b_by_a);
    py::class_<Head, Kept>(m, "HeadDiff")
        .def_readonly("layer", &Head::layer)
        .def_readonly("head", &Head::head)
        .def_readonly("group", &Head::group)
        .def_property_readonly("order_a", [name](const Head& head) { return name(head.order_a); })
        .def_property_readonly("order_b", [name](const Head& head) { return name(head.order_b); })
        .def_readonly("density_a", &Head::density_a)
        .def_readonly("density_b", &Head::density_b)
        .def_readonly("locked_a", &Head::locked_a)
        .def_readonly("locked_b", &Head::locked_b)
        .def_property_readonly("changed", &Head::changed);
    py::class_<ProfileDiff>(m, "ProfileDiff")
        .def_property_readonly("fields",
                               [](const ProfileDiff& diff) {
                                   std::vector<std::tuple<std::string, std::string, std::string>> fields;
                                   for (const auto& field : diff.fields)
                                       fields.emplace_back(field.name, field.a, field.b);
                                   return fields;
                               })
        .def_property_readonly("changed", &ProfileDiff::changed)
        .def_property_readonly("mean", &ProfileDiff::mean)
        .def_readonly("only_a", &ProfileDiff::only_a)
        .def_readonly("only_b", &ProfileDiff::only_b)
        .def_readonly("heads", &ProfileDiff::heads);
}

}  // namespace

void bind_profile_merge(py::module_& m) {
    m.def("renew_profile", &renewed, py::arg("profile"), py::arg("group"), py::arg("samples"), py::arg("prior"),
          py::arg("threads") = 0,
          "The profile with a timestep group's kernels renewed. samples: by layer id [(OffsetAccumulators by head,\n"
          "weight of a row)]; prior: rows that the profile's own kernels count as.");
    m.def("merge_profiles", &merge_profiles, py::arg("old"), py::arg("fresh"), py::arg("density"),
          py::arg("threads") = 0, py::call_guard<py::gil_scoped_release>(),
          "The mean of two profiles of one model, weighted by their prompts; orders chosen anew unless locked. Layers\n"
          "that one of them alone holds are taken over.");
    m.def("complete_profile", &complete_profile, py::arg("profile"), py::arg("other"), py::arg("threads") = 0,
          py::call_guard<py::gil_scoped_release>(), "The profile, and of `other` the layers that it lacks.");
    m.def("require_mergeable", &require_mergeable, py::arg("old"), py::arg("fresh"),
          "Raises Error naming what differs if they are of different models or patches, or of far grids.");
    bind_diff(m);
}

}  // namespace paro::python
