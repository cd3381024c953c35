// The density slider for this head, its layer or all heads, and what follows from it.
#include <algorithm>
#include <cstdio>

#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

double shown_density(const Document& document, Scope scope) {
    if (scope == Scope::all) return document.default_density();
    if (scope == Scope::head) return document.density(document.selected());
    return document.figures(Scope::layer).density;
}

void draw_scope(Ui& ui) {
    const Document& document = ui.document;
    const auto radio = [&](const char* label, Scope scope, const char* anchor, const char* help) {
        if (ImGui::RadioButton(label, ui.density.scope == scope)) ui.density.scope = scope;
        ui.anchor(anchor);
        tooltip(help);
    };
    radio("this head", Scope::head, "density.scope_head", document.name_of(document.selected()).c_str());
    flow(checkbox_width("its layer"));
    radio("its layer", Scope::layer, "density.scope_layer", "All heads of the selected head's layer.");
    flow(checkbox_width("all heads"));
    radio("all heads", Scope::all, "density.scope_all",
          "The profile's default density, for heads without one of their own. The density of the PARO Attention node "
          "comes before it, so try values here and set them there, or pin them.");
}

void draw_slider(Ui& ui) {
    Document& document = ui.document;
    const Scope scope = ui.density.scope;
    float percent = static_cast<float>(100.0 * shown_density(document, scope));
    ImGui::SetNextItemWidth(-1);
    const bool moved = ImGui::SliderFloat("##density", &percent, 0.5f, 100.0f, "%.1f %% of the blocks");
    ui.anchor("density.slider");
    tooltip(
        "Share of the grid's blocks that are computed. Lower is faster and keeps less. Ctrl+click to type a value. "
        "Keys [ and ] move it by one percent for the selected head.");
    if (ImGui::IsItemActivated()) ++ui.density.drag;
    if (!moved) return;
    const int step = step_of_density(percent / 100.0);
    document.set_density(scope, density_of_step(step), ui.density.drag, ui.density.pin);
}

void draw_buttons(Ui& ui) {
    Document& document = ui.document;
    const Scope scope = ui.density.scope;
    if (scope == Scope::all) {
        ImGui::Checkbox("pin to every head", &ui.density.pin);
        ui.anchor("density.pin");
        tooltip("Writes the density into every head: it then comes before the node's own.");
        flow(button_width("Unpin"));
    }
    std::size_t own = 0;
    for (const std::size_t i : document.in_scope(scope)) own += document.heads()[i].density ? 1 : 0;
    ImGui::BeginDisabled(own == 0);
    if (ImGui::Button(scope == Scope::head ? "Use the default" : "Unpin")) document.clear_density(scope);
    ImGui::EndDisabled();
    ui.anchor("density.clear");
    tooltip("Removes the heads' own density: they follow the node's again.");
    std::string follows = own > 0 ? "own density" : "follows the default";
    if (scope != Scope::head) {
        follows = std::to_string(own) + " of " + std::to_string(document.in_scope(scope).size()) + " pinned";
    }
    flow(text_width(follows));
    ImGui::AlignTextToFramePadding();
    muted("%s", follows.c_str());
}

void line(const char* what, const char* help, const std::string& value) {
    ImGui::TableNextRow();
    ImGui::TableNextColumn();
    muted("%s", what);
    if (help != nullptr) tooltip(help);
    ImGui::TableNextColumn();
    ImGui::TextWrapped("%s", value.c_str());
}

template <typename... Values>
std::string text(const char* format, Values... values) {
    char out[128];
    std::snprintf(out, sizeof out, format, values...);
    return out;
}

void draw_figures(Ui& ui) {
    const Document& document = ui.document;
    const Figures f = document.figures(ui.density.scope);
    if (!ImGui::BeginTable("figures", 2, ImGuiTableFlags_SizingFixedFit)) return;
    ImGui::TableSetupColumn("what");
    ImGui::TableSetupColumn("value", ImGuiTableColumnFlags_WidthStretch);
    line(f.heads > 1 ? "blocks a head" : "blocks computed",
         "Pairs of query and key blocks of the grid that the mask holds.",
         text("%.0f of %.0f (%.1f %%)", f.count, f.blocks, 100.0 * f.density));
    line("attention kept", "Retained mass: the share of the attention that falls into the computed blocks.",
         text("%.1f %%", 100.0 * f.retained) +
             (f.exact < f.heads ? text(", %zu of %zu exact", f.exact, f.heads) : std::string()));
    if (f.lost_on_rows >= 0.0) {
        line("on captured rows", "The same, measured on the sampled softmax rows instead of the kernel.",
             text("%.1f %%", 100.0 * (1.0 - f.lost_on_rows)));
    }
    line("attention's work", "Computed blocks with text, and one pooled key per skipped block where the tail is on.",
         text("%.2f of dense, %.1fx less", f.work, 1.0 / f.work));
    if (f.seconds) {
        const TimeModel& time = document.time_model();
        line("predicted time",
             time.two_runs ? "Seconds of attention in a run like the logged sparse one, from what the log's dense and "
                             "sparse calls took."
                           : "Seconds of attention in a run like the logged one, if a computed block costs the same "
                             "dense and sparse.",
             text("%.1f s (logged run %.1f s)", *f.seconds, time.attention_seconds));
    } else {
        line("predicted time", "Needs a run log with a finished sparse run of this model (File, Open run log).",
             "no run log of a sparse run");
    }
    ImGui::EndTable();
}

}  // namespace

void draw_density(Ui& ui) {
    draw_scope(ui);
    draw_slider(ui);
    draw_buttons(ui);
    ImGui::Separator();
    draw_figures(ui);
    Document& document = ui.document;
    const bool sparse_text = document.prefix() + document.suffix() > 0;
    if (ImGui::TreeNodeEx("Text tokens", sparse_text ? ImGuiTreeNodeFlags_DefaultOpen : 0)) {
        int before = static_cast<int>(document.prefix()), after = static_cast<int>(document.suffix());
        ImGui::SetNextItemWidth(ui.px(110));
        bool changed = ImGui::InputInt("before", &before, 64);
        flow(ui.px(110) + ImGui::GetStyle().ItemInnerSpacing.x + text_width("after"));
        ImGui::SetNextItemWidth(ui.px(110));
        changed = ImGui::InputInt("after", &after, 64) || changed;
        if (changed) document.set_text(before, after);
        tooltip(
            "Models with joint attention put text before or after the grid. Its blocks are always computed and are "
            "drawn around the maps.");
        ImGui::TreePop();
    }
    muted_wrapped("First a head's own density, then the node's, then the default (%.1f %%).",
                  100.0 * document.default_density());
}

}  // namespace paro::viewer
