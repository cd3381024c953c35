#include "paro/head_view.h"

#include "paro/error.h"

namespace paro {

Image HeadView::picture(int side, Overlay overlay) const {
    require(side >= 1 && side <= 4096, "side", "must be 1 to 4096", side);
    Style style;
    style.scale = scale;
    style.overlay = overlay;
    Image out;
    const View whole{0.0, 0.0, static_cast<double>(map.cols), static_cast<double>(map.rows)};
    paint(masked(map, ranking, density), whole, style, side, side, out);
    return out;
}

std::array<HeadView, 2> head_views(const Profile& profile, std::size_t layer, std::size_t head, std::size_t group,
                                   std::int32_t block, double density) {
    require(layer < profile.layers.size(), "layer", "must be below " + std::to_string(profile.layers.size()), layer);
    const std::vector<ProfileHead>& heads = profile.layers[layer].heads;
    require(head < heads.size(), "head", "must be below " + std::to_string(heads.size()), head);
    const ProfileHead& own = heads[head];
    require(group < own.groups.size(), "group", "must be below " + std::to_string(own.groups.size()), group);
    const std::vector<Grid>& grids = profile.calibration.grids;
    require(!grids.empty(), "calibration.grids", "must hold a grid", "none");
    const OffsetKernel kernel = dequantise(profile.bins, own.groups[group].kernel);
    std::array<HeadView, 2> views;
    Scale scale;
    for (std::size_t i = 0; i < views.size(); ++i) {
        HeadView& view = views[i];
        view.map = importance(kernel, grids.front(), i == 0 ? AxisOrder::FHW : own.order, block, block);
        view.ranking = rank_blocks(view.map);
        view.density = own.density.value_or(density);
        view.ranking.budget(view.density);  // refuses a bad one
        scale.widen(view.map.value);
    }
    for (HeadView& view : views) view.scale = scale;
    return views;
}

}  // namespace paro
