// Plans built in the background.
#include <chrono>
#include <map>
#include <memory>
#include <variant>

#include "known_arrays.h"
#include "paro/plan_builder.h"

namespace paro::python {

namespace {

using LayerKey = std::variant<std::size_t, std::string>;

// A PlanBuilder that also knows layers by their ids.
class NamedPlanBuilder {
   public:
    NamedPlanBuilder(const Profile& profile, PlanRequest request, const std::vector<LayerKey>& layers,
                     const std::map<LayerKey, std::shared_ptr<KnownArrays>>& known) {
        for (const ProfileLayer& layer : profile.layers) ids_.push_back(layer.id);
        for (const LayerKey& layer : layers) request.layers.push_back(index(layer));
        request.known.resize(ids_.size());
        for (const auto& [layer, arrays] : known) {
            const std::size_t place = index(layer);
            require(place < ids_.size(), "known",
                    "must name layers below " + std::to_string(ids_.size()) + ", the profile's", place);
            require(arrays != nullptr, "known", "must be KnownBlocks", "None");
            request.known[place] = arrays->known;
            known_.push_back(arrays);
        }
        py::gil_scoped_release release;
        builder_ = std::make_unique<PlanBuilder>(profile, std::move(request));
    }

    std::size_t index(const LayerKey& layer) const {
        if (const auto* place = std::get_if<std::size_t>(&layer)) return *place;
        const std::string& id = std::get<std::string>(layer);
        for (std::size_t i = 0; i < ids_.size(); ++i) {
            if (ids_[i] == id) return i;
        }
        fail("layer", "must be one of the profile's layers", id);
    }

    // Waits in short turns, so that an interrupt gets through.
    std::shared_ptr<Plan> get(const LayerKey& layer) {
        const std::size_t place = index(layer);
        for (bool settled = false; !settled;) {
            {
                py::gil_scoped_release release;
                settled = builder_->wait(place, std::chrono::milliseconds(100));
            }
            if (!settled && PyErr_CheckSignals() != 0) throw py::error_already_set();
        }
        // pybind11 holds no pointers to const; Python cannot change a Plan.
        return std::const_pointer_cast<Plan>(builder_->get(place));
    }

    PlanBuilder& builder() const { return *builder_; }

   private:
    std::vector<std::string> ids_;
    std::vector<std::shared_ptr<KnownArrays>> known_;
    std::unique_ptr<PlanBuilder> builder_;  // last: its threads read what is known
};

}  // namespace

void bind_plan_builder(py::module_& m) {
    py::class_<NamedPlanBuilder>(m, "PlanBuilder",
                                 "Builds the plans of a profile's layers on threads of its own, from construction on.")
        .def(py::init([](const Profile& profile, std::size_t group, const GridTuple& grid, std::int64_t prefix,
                         std::int64_t suffix, std::int32_t block_q, std::int32_t block_kv, double density, int threads,
                         const std::vector<LayerKey>& layers,
                         const std::map<LayerKey, std::shared_ptr<KnownArrays>>& known) {
                 PlanRequest request{group, {prefix, to_grid(grid), suffix}, block_q, block_kv, density, threads, {}};
                 return std::make_unique<NamedPlanBuilder>(profile, std::move(request), layers, known);
             }),
             py::arg("profile"), py::arg("group"), py::arg("grid"), py::arg("prefix") = 0, py::arg("suffix") = 0,
             py::arg("block_q") = 64, py::arg("block_kv") = 64, py::arg("density") = 0.3, py::arg("threads") = 0,
             py::arg("layers") = std::vector<LayerKey>{},
             py::arg("known") = std::map<LayerKey, std::shared_ptr<KnownArrays>>{},
             "layers: indices or ids in the order in which they will be needed; all of them if empty. known:\n"
             "KnownBlocks by layer; their arrays must stay as they are while the layer is busy.")
        .def(
            "get", &NamedPlanBuilder::get, py::arg("layer"),
            "The Plan of a layer (index or id); waits for it. Raises what building it raised, or Error once cancelled.")
        .def(
            "ready",
            [](const NamedPlanBuilder& self, const LayerKey& layer) { return self.builder().ready(self.index(layer)); },
            py::arg("layer"), "Whether get(layer) would return at once.")
        .def(
            "busy",
            [](const NamedPlanBuilder& self, const LayerKey& layer) { return self.builder().busy(self.index(layer)); },
            py::arg("layer"), "Whether a thread reads, or may come to read, what is known of the layer.")
        .def_property_readonly(
            "progress",
            [](const NamedPlanBuilder& self) {
                const PlanProgress progress = self.builder().progress();
                return py::make_tuple(progress.done, progress.all);
            },
            "(heads done, all heads).")
        .def(
            "cancel", [](const NamedPlanBuilder& self) { self.builder().cancel(); },
            "Stops after the heads under way; layers that are finished stay available.");
}

}  // namespace paro::python
