// Heads as pictures: the colours and scales that the viewer draws with.
#include "bindings.h"
#include "paro/head_view.h"
#include "paro/profile_plan.h"

namespace paro::python {

namespace {

py::array_t<std::uint8_t> rgb(const Rgba* pixel, std::vector<py::ssize_t> shape) {
    py::array_t<std::uint8_t> array(std::move(shape));
    std::uint8_t* out = array.mutable_data();
    for (py::ssize_t i = 0; i < array.size() / 3; ++i) {
        *out++ = pixel[i].r;
        *out++ = pixel[i].g;
        *out++ = pixel[i].b;
    }
    return array;
}

}  // namespace

void bind_paint(py::module_& m) {
    m.def(
        "colormap",
        [] {
            return rgb(colormap(Palette::dusk, false).data(), {256, 3});
        },
        "uint8 [256, 3]: the colours of block maps, from none to most.");
    py::class_<HeadView>(m, "HeadView")
        .def_property_readonly("order", [](const HeadView& view) { return std::string(to_string(view.map.order)); })
        .def_readonly("density", &HeadView::density)
        .def_property_readonly("rows", [](const HeadView& view) { return view.map.rows; })
        .def_property_readonly("retained", &HeadView::retained)
        .def(
            "picture",
            [](const HeadView& view, int side, bool mask) {
                const Image image = view.picture(side, mask ? Overlay::shade : Overlay::off);
                return rgb(image.pixel.data(), {image.height, image.width, 3});
            },
            py::arg("side"), py::arg("mask") = true,
            "uint8 [side, side, 3]: rows are queries, columns keys. mask: skipped blocks are greyed.");
    m.def(
        "head_views",
        [](const Profile& profile, std::size_t layer, std::size_t head, std::size_t group, std::int32_t block,
           double density) {
            auto views = head_views(profile, layer, head, group, block, density);
            return std::vector<HeadView>{std::move(views[0]), std::move(views[1])};
        },
        py::arg("profile"), py::arg("layer"), py::arg("head"), py::arg("group"), py::arg("block") = kMassTile,
        py::arg("density") = 0.3, py::call_guard<py::gil_scoped_release>(),
        "A head's HeadViews in the order FHW and in its own, on one scale, on the profile's first grid. Its own\n"
        "density comes before `density`.");
}

}  // namespace paro::python
