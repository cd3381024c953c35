// The profile: this head's choices, the list of edits, comparison with another profile, and what the file says of
// itself.
#include <algorithm>
#include <cstdio>

#include "document/files/utf8.h"
#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

// Columns as wide as what they hold; where that is too much the table scrolls.
constexpr ImGuiTableFlags kListFlags =
    ImGuiTableFlags_RowBg | ImGuiTableFlags_ScrollX | ImGuiTableFlags_ScrollY | ImGuiTableFlags_SizingFixedFit;

std::string density_text(const std::optional<double>& density) {
    if (!density) return "default";
    char text[16];
    std::snprintf(text, sizeof text, "%.1f %%", 100.0 * *density);
    return text;
}

void draw_this_head(Ui& ui) {
    Document& document = ui.document;
    const std::size_t selected = document.selected();
    const HeadState head = document.heads()[selected];
    fitted_text(document.name_of(selected), ImGui::GetContentRegionAvail().x);
    ImGui::AlignTextToFramePadding();
    muted("order");
    ImGui::SameLine(ui.px(64));
    ImGui::SetNextItemWidth(ui.px(86));
    if (ImGui::BeginCombo("##order", std::string(to_string(head.order)).c_str())) {
        for (const AxisOrder order : kAxisOrders) {
            std::string label(to_string(order));
            const auto& map = document.maps().order[static_cast<std::size_t>(order)];
            if (map) {
                char kept[24];
                std::snprintf(kept, sizeof kept, "  keeps %.1f %%",
                              100.0 * map->ranking.retained(document.density(selected)));
                label += kept;
            }
            if (ImGui::Selectable(label.c_str(), order == head.order)) document.set_order(order);
            ui.anchor("order." + std::string(to_string(order)));
        }
        ImGui::EndCombo();
    }
    ui.anchor("profile.order");
    tooltip("The order in which the head's tokens are laid out. Choosing one locks it.");
    flow(checkbox_width("locked"));
    bool locked = head.locked;
    if (ImGui::Checkbox("locked", &locked)) document.set_locked(Scope::head, locked);
    ui.anchor("profile.lock");
    tooltip("Calibration keeps a locked head's order. Key L.");
    flow(button_width("Reset"));
    ImGui::BeginDisabled(!document.edited(selected));
    if (ImGui::Button("Reset")) document.reset(Scope::head);
    ImGui::EndDisabled();
    ui.anchor("profile.reset");
    tooltip("Back to what the file holds.");
    muted("density");
    ImGui::SameLine(ui.px(64));
    ImGui::TextWrapped("%s", head.density ? (density_text(head.density) + ", its own").c_str()
                                          : "the node's, or the profile's default");
}

void draw_edits(Ui& ui) {
    Document& document = ui.document;
    const std::size_t count = document.edited_count();
    const EditState saved = edit_state_of(document.base());
    if (count == 0 && !document.modified()) {
        muted_wrapped("No edits. Drag the density, or choose an order.");
        return;
    }
    if (ImGui::Button("Save")) document.save();
    ui.anchor("profile.save");
    flow(button_width("Save as..."));
    if (ImGui::Button("Save as...")) ui.dialog = DialogKind::save_as;
    ui.anchor("profile.save_as");
    flow(button_width("Reset all"));
    if (ImGui::Button("Reset all")) document.reset(Scope::all);
    ui.anchor("profile.reset_all");
    if (document.default_density() != saved.density) {
        ImGui::TextWrapped("default density: %.1f %% to %.1f %%", 100.0 * saved.density,
                           100.0 * document.default_density());
    }
    if (count == 0) return;
    muted("%zu head%s changed", count, count == 1 ? "" : "s");
    if (!ImGui::BeginTable("edits", 3, kListFlags, {0, std::max(ui.px(60), ImGui::GetContentRegionAvail().y)})) return;
    ImGui::TableSetupScrollFreeze(0, 1);
    for (const char* column : {"head", "order", "density"}) ImGui::TableSetupColumn(column);
    ImGui::TableHeadersRow();
    std::vector<std::size_t> edited;
    for (std::size_t i = 0; i < document.head_count(); ++i) {
        if (document.edited(i)) edited.push_back(i);
    }
    ImGuiListClipper clipper;
    clipper.Begin(static_cast<int>(edited.size()));
    while (clipper.Step()) {
        for (int row = clipper.DisplayStart; row < clipper.DisplayEnd; ++row) {
            const std::size_t i = edited[static_cast<std::size_t>(row)];
            const HeadState &before = saved.heads[i], &now = document.heads()[i];
            ImGui::TableNextRow();
            ImGui::TableNextColumn();
            if (ImGui::Selectable(document.name_of(i).c_str(), i == document.selected(),
                                  ImGuiSelectableFlags_SpanAllColumns)) {
                document.select(i);
            }
            ImGui::TableNextColumn();
            const std::string order(to_string(now.order));
            ImGui::TextUnformatted(before.order == now.order
                                       ? (now.locked != before.locked ? (now.locked ? "locked" : "unlocked") : "")
                                       : (std::string(to_string(before.order)) + " to " + order).c_str());
            ImGui::TableNextColumn();
            if (before.density != now.density) {
                ImGui::Text("%s to %s", density_text(before.density).c_str(), density_text(now.density).c_str());
            }
        }
    }
    ImGui::EndTable();
}

void draw_about(Ui& ui) {
    const Profile& profile = ui.document.base();
    const auto line = [](const char* what, const std::string& value, const char* help = nullptr) {
        ImGui::TableNextRow();
        ImGui::TableNextColumn();
        muted("%s", what);
        ImGui::TableNextColumn();
        ImGui::TextWrapped("%s", value.c_str());
        if (help != nullptr) tooltip(help);
    };
    if (!ImGui::BeginTable("about", 2,
                           ImGuiTableFlags_SizingStretchProp | ImGuiTableFlags_ScrollY | ImGuiTableFlags_PadOuterX))
        return;
    ImGui::TableSetupColumn("what", 0, 1.0f);
    ImGui::TableSetupColumn("value", 0, 1.9f);
    std::string grids;
    for (const Grid& grid : profile.calibration.grids) {
        grids += (grids.empty() ? "" : ", ") + std::to_string(grid.f) + " x " + std::to_string(grid.h) + " x " +
                 std::to_string(grid.w);
    }
    line("model", profile.model.family + ", " + profile.model.fingerprint.substr(0, 12),
         profile.model.fingerprint.c_str());
    line("patches", profile.model.patches.empty() ? "none" : profile.model.patches, "Hash of LoRAs and other patches.");
    line("heads", std::to_string(profile.model.layers) + " x " + std::to_string(profile.model.heads) + " of " +
                      std::to_string(profile.model.head_dim));
    line("grids", grids,
         "Calibrated grids: frames x rows x columns of patches. Masks carry over to sides within 0.75 to 1.35.");
    line("prompts", std::to_string(profile.calibration.prompts) + " of " + std::to_string(profile.calibration.steps) +
                        " steps, " + profile.calibration.sampler);
    line("queries", std::to_string(profile.calibration.queries) + " a head and evaluation");
    line("date", profile.calibration.date + ", version " + profile.calibration.version);
    line("defaults", profile.defaults.precision + ", tail " + (profile.defaults.tail ? "on" : "off"));
    line("exact rows",
         ui.document.capture() == nullptr ? "no capture" : std::to_string(ui.document.captured_count()) + " heads");
    ImGui::EndTable();
}

std::string kept_text(double own, double other) {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f / %.1f %%", 100.0 * own, 100.0 * other);
    return text;
}

void draw_difference(Ui& ui, const ProfileDiff::Head& d, bool groups) {
    const auto both = [](const std::string& a, const std::string& b) { return a == b ? a : a + " / " + b; };
    Document& document = ui.document;
    ImGui::TableNextColumn();
    std::string name = d.layer + " / " + std::to_string(d.head);
    if (groups) name += d.group == 0 ? ", early" : ", late";
    if (ImGui::Selectable(name.c_str(), false, ImGuiSelectableFlags_SpanAllColumns)) {
        for (std::size_t l = 0; l < document.layers(); ++l) {
            if (document.base().layers[l].id == d.layer) document.select(document.index(l, d.head));
        }
    }
    ImGui::TableNextColumn();
    ImGui::TextUnformatted(both(std::string(to_string(d.order_a)), std::string(to_string(d.order_b))).c_str());
    ImGui::TableNextColumn();
    ImGui::TextUnformatted(both(density_text(d.density_a), density_text(d.density_b)).c_str());
    ImGui::TableNextColumn();
    ImGui::TextUnformatted(kept_text(d.a_by_a, d.a_by_b).c_str());
    ImGui::TableNextColumn();
    ImGui::TextUnformatted(kept_text(d.b_by_b, d.b_by_a).c_str());
}

void draw_differences(Ui& ui, const ProfileDiff& diff) {
    for (const ProfileDiff::Field& field : diff.fields) {
        ImGui::Bullet();
        ImGui::TextWrapped("%s: %s and %s", field.name.c_str(), field.a.c_str(), field.b.c_str());
    }
    if (!diff.only_a.empty()) ImGui::BulletText("%zu layers only here", diff.only_a.size());
    if (!diff.only_b.empty()) ImGui::BulletText("%zu layers only there", diff.only_b.size());
    const ProfileDiff::Kept mean = diff.mean();
    muted_wrapped("%zu of %zu heads changed. Kept in its own masks / in the other's, on average: here %s, there %s",
                  diff.changed(), diff.heads.size(), kept_text(mean.a_by_a, mean.a_by_b).c_str(),
                  kept_text(mean.b_by_b, mean.b_by_a).c_str());
    tooltip(
        "Retained mass at the tile 64 x 64 on the first grid, each profile's attention as its own kernels tell it: the "
        "figures of `profile diff`.");
    std::vector<const ProfileDiff::Head*> changed;
    bool groups = false;
    for (const ProfileDiff::Head& head : diff.heads) {
        groups = groups || head.group > 0;
        if (head.changed()) changed.push_back(&head);
    }
    if (changed.empty()) return;
    const ImVec2 size = {0, std::max(ui.px(90), ImGui::GetContentRegionAvail().y)};
    if (!ImGui::BeginTable("differences", 5, kListFlags, size)) return;
    ImGui::TableSetupScrollFreeze(0, 1);
    for (const char* column : {"layer / head", "order", "density", "kept here", "kept there"}) {
        ImGui::TableSetupColumn(column);
    }
    ImGui::TableHeadersRow();
    ImGuiListClipper clipper;
    clipper.Begin(static_cast<int>(changed.size()));
    while (clipper.Step()) {
        for (int row = clipper.DisplayStart; row < clipper.DisplayEnd; ++row) {
            ImGui::TableNextRow();
            ImGui::PushID(row);
            draw_difference(ui, *changed[static_cast<std::size_t>(row)], groups);
            ImGui::PopID();
        }
    }
    ImGui::EndTable();
}

void draw_comparison(Ui& ui) {
    Document& document = ui.document;
    if (ImGui::Button("Compare with...")) ui.dialog = DialogKind::compare;
    ui.anchor("profile.compare");
    const Document::Compared* compared = document.comparison();
    if (compared == nullptr) {
        ImGui::TextWrapped(
            "Shows where another profile of this model differs: orders, densities, and what each one's attention keeps "
            "under "
            "the other's masks.");
        return;
    }
    flow(button_width("Close"));
    const bool close = ImGui::SmallButton("Close");
    fitted_text(utf8(compared->path.filename()), ImGui::GetContentRegionAvail().x);
    if (!compared->same_model) ImGui::TextColored(warning_color(ui), "Of another model.");
    draw_differences(ui, compared->diff);
    if (close) document.close_comparison();
}

}  // namespace

void draw_profile(Ui& ui) {
    if (!ui.document.has_maps()) return;
    draw_this_head(ui);
    if (!ImGui::BeginTabBar("profile")) return;
    const std::size_t edited = ui.document.edited_count();
    const std::string edits = edited > 0 ? "Edits (" + std::to_string(edited) + ")###edits" : "Edits###edits";
    if (ImGui::BeginTabItem(edits.c_str())) {
        draw_edits(ui);
        ImGui::EndTabItem();
    }
    ui.anchor("tab.edits");
    const ImGuiTabItemFlags jump = ui.show_comparison ? ImGuiTabItemFlags_SetSelected : 0;
    ui.show_comparison = false;
    if (ImGui::BeginTabItem("Compare", nullptr, jump)) {
        draw_comparison(ui);
        ImGui::EndTabItem();
    }
    ui.anchor("tab.compare");
    if (ImGui::BeginTabItem("About")) {
        draw_about(ui);
        ImGui::EndTabItem();
    }
    ui.anchor("tab.about");
    ImGui::EndTabBar();
}

}  // namespace paro::viewer
