// Profiles. Members are plain attributes; validate() holds the schema's rules.
#include <filesystem>

#include "bindings.h"
#include "paro/profile.h"

namespace paro::python {

namespace {

std::string kernel_bytes(const HeadGroup& group) { return {group.kernel.code.begin(), group.kernel.code.end()}; }

void bind_heads(py::module_& m) {
    py::class_<HeadGroup>(m, "HeadGroup")
        .def(py::init([](const std::string& code, float peak, const std::array<double, 4>& mass) {
                 return HeadGroup{{std::vector<std::uint8_t>(code.begin(), code.end()), peak}, mass};
             }),
             py::arg("code"), py::arg("peak"), py::arg("mass"))
        .def_property_readonly("code", [](const HeadGroup& group) { return py::bytes(kernel_bytes(group)); })
        .def_property_readonly("peak", [](const HeadGroup& group) { return group.kernel.peak; })
        .def_readwrite("mass", &HeadGroup::mass);
    py::class_<ProfileHead>(m, "ProfileHead")
        .def(py::init<>())
        .def_property(
            "order", [](const ProfileHead& head) { return std::string(to_string(head.order)); },
            [](ProfileHead& head, const std::string& order) { head.order = parse_axis_order(order); })
        .def_readwrite("density", &ProfileHead::density)
        .def_readwrite("locked", &ProfileHead::locked)
        .def_readwrite("groups", &ProfileHead::groups);
    py::class_<ProfileLayer>(m, "ProfileLayer")
        .def(py::init([](std::string id, std::vector<ProfileHead> heads) {
                 return ProfileLayer{std::move(id), std::move(heads)};
             }),
             py::arg("id"), py::arg("heads"))
        .def_readwrite("id", &ProfileLayer::id)
        .def_readwrite("heads", &ProfileLayer::heads);
}

void bind_meta(py::module_& m) {
    py::class_<ProfileModel>(m, "ProfileModel")
        .def(py::init<>())
        .def_readwrite("family", &ProfileModel::family)
        .def_readwrite("fingerprint", &ProfileModel::fingerprint)
        .def_readwrite("layers", &ProfileModel::layers)
        .def_readwrite("heads", &ProfileModel::heads)
        .def_readwrite("head_dim", &ProfileModel::head_dim)
        .def_readwrite("patches", &ProfileModel::patches);
    py::class_<ProfileCalibration>(m, "ProfileCalibration")
        .def(py::init<>())
        .def_property(
            "grids",
            [](const ProfileCalibration& self) {
                std::vector<GridTuple> grids;
                for (const Grid& grid : self.grids) grids.push_back(from_grid(grid));
                return grids;
            },
            [](ProfileCalibration& self, const std::vector<GridTuple>& grids) {
                self.grids.clear();
                for (const GridTuple& grid : grids) self.grids.push_back(to_grid(grid));
            })
        .def_readwrite("steps", &ProfileCalibration::steps)
        .def_readwrite("sampler", &ProfileCalibration::sampler)
        .def_readwrite("prompts", &ProfileCalibration::prompts)
        .def_readwrite("queries", &ProfileCalibration::queries)
        .def_readwrite("date", &ProfileCalibration::date)
        .def_readwrite("version", &ProfileCalibration::version);
    py::class_<ProfileDefaults>(m, "ProfileDefaults")
        .def(py::init<>())
        .def_readwrite("density", &ProfileDefaults::density)
        .def_readwrite("precision", &ProfileDefaults::precision)
        .def_readwrite("tail", &ProfileDefaults::tail);
}

std::string match_name(GridMatch match) {
    return match == GridMatch::exact ? "exact" : match == GridMatch::near ? "near" : "far";
}

// A name as UTF-8. Bytes that were no text to the system, and halves of pairs, go through: the rule refuses them.
std::string name_bytes(const py::object& name) {
    if (!py::isinstance<py::str>(name)) {
        // In ASCII, so that a cut leaves text.
        const auto shown = py::reinterpret_steal<py::object>(PyObject_ASCII(name.ptr()));
        if (!shown) PyErr_Clear();  // for one, an integer beyond what Python writes out
        const std::string text = shown ? shown.cast<std::string>() : std::string("something else");
        fail("profile name", "must be a text", text.size() > 80 ? text.substr(0, 77) + "..." : text);
    }
    const auto bytes =
        py::reinterpret_steal<py::bytes>(PyUnicode_AsEncodedString(name.ptr(), "utf-8", "surrogatepass"));
    if (!bytes) throw py::error_already_set();
    return bytes;
}

}  // namespace

void bind_profile(py::module_& m) {
    m.attr("PROFILE_SCHEMA") = std::string(kProfileSchema);
    m.attr("MASS_DENSITIES") = kMassDensities;
    bind_heads(m);
    bind_meta(m);
    py::class_<Profile>(m, "Profile")
        .def(py::init<>())
        .def_readwrite("model", &Profile::model)
        .def_readwrite("calibration", &Profile::calibration)
        .def_readwrite("defaults", &Profile::defaults)
        .def_readwrite("bins", &Profile::bins)
        .def_property(
            "timestep_groups",
            [](const Profile& profile) {
                std::vector<std::pair<double, double>> groups;
                for (const auto& group : profile.timestep_groups) groups.emplace_back(group.sigma_max, group.sigma_min);
                return groups;
            },
            [](Profile& profile, const std::vector<std::pair<double, double>>& groups) {
                profile.timestep_groups.clear();
                for (const auto& [high, low] : groups) profile.timestep_groups.push_back({high, low});
            })
        .def_readwrite("layers", &Profile::layers)
        .def("layer_ids",
             [](const Profile& profile) {
                 std::vector<std::string> ids;
                 for (const auto& layer : profile.layers) ids.push_back(layer.id);
                 return ids;
             })
        .def("validate", [](const Profile& profile) { validate(profile); })
        .def("dump", &dump_profile, py::call_guard<py::gil_scoped_release>())
        .def("save", &save_profile, py::call_guard<py::gil_scoped_release>())
        .def("match_grid", [](const Profile& profile,
                              const GridTuple& grid) { return match_name(match_grid(profile, to_grid(grid))); })
        .def("timestep_group", &timestep_group)
        .def_static(
            "parse", [](const std::string& json) { return parse_profile(json); },
            py::call_guard<py::gil_scoped_release>())
        .def_static(
            "load", [](const std::filesystem::path& path) { return load_profile(path); },
            py::call_guard<py::gil_scoped_release>());
    m.attr("MAX_PROFILE_NAME") = kMaxProfileName;
    m.def("validate_profile_name", [](const py::object& name) { validate_profile_name(name_bytes(name)); });
    m.def("profile_name_rule", [](const py::object& name) { return std::string(profile_name_rule(name_bytes(name))); });
    m.def("suggest_profile_name", [](const py::object& name) { return suggest_profile_name(name_bytes(name)); });
}

}  // namespace paro::python
