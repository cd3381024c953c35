// Values by name, for scripts: what a test may ask.
#include <cstdio>
#include <functional>

#include "app/app.h"
#include "document/files/utf8.h"
#include "paro/error.h"

namespace paro::viewer {

namespace {

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.10g", value);
    return text;
}

std::string flag(bool value) { return value ? "true" : "false"; }

// The selected head's map in its own order.
const OrderMap& own_map(const Document& document) {
    const AxisOrder order = document.heads()[document.selected()].order;
    const auto& found = document.maps().order[static_cast<std::size_t>(order)];
    require(found != nullptr, "mask", "must be computed: put `wait` before", "nothing yet");
    return *found;
}

using Getter = std::function<std::string(const Ui&)>;

const std::map<std::string, Getter>& getters() {
    static const std::map<std::string, Getter> all = {
        {"open", [](const Ui& ui) { return flag(ui.document.has_profile()); }},
        {"path", [](const Ui& ui) { return utf8(ui.document.path()); }},
        {"modified", [](const Ui& ui) { return flag(ui.document.modified()); }},
        {"selection", [](const Ui& ui) { return ui.document.name_of(ui.document.selected()); }},
        {"selection.index", [](const Ui& ui) { return std::to_string(ui.document.selected()); }},
        {"head.order",
         [](const Ui& ui) { return std::string(to_string(ui.document.heads()[ui.document.selected()].order)); }},
        {"head.density", [](const Ui& ui) { return number(ui.document.density(ui.document.selected())); }},
        {"head.locked", [](const Ui& ui) { return flag(ui.document.heads()[ui.document.selected()].locked); }},
        {"head.rows", [](const Ui& ui) { return flag(ui.document.rows_captured(ui.document.selected())); }},
        {"default.density", [](const Ui& ui) { return number(ui.document.default_density()); }},
        {"mask.count",
         [](const Ui& ui) {
             return std::to_string(own_map(ui.document).ranking.count(ui.document.density(ui.document.selected())));
         }},
        {"mask.blocks", [](const Ui& ui) { return std::to_string(own_map(ui.document).ranking.blocks()); }},
        {"mask.retained",
         [](const Ui& ui) {
             return number(own_map(ui.document).ranking.retained(ui.document.density(ui.document.selected())));
         }},
        {"all.count", [](const Ui& ui) { return number(ui.document.figures(Scope::all).count); }},
        {"all.retained", [](const Ui& ui) { return number(ui.document.figures(Scope::all).retained); }},
        {"all.exact", [](const Ui& ui) { return std::to_string(ui.document.overview().exact_count()); }},
        {"all.seconds", [](const Ui& ui) { return number(ui.document.figures(Scope::all).seconds.value_or(-1.0)); }},
        {"heads", [](const Ui& ui) { return std::to_string(ui.document.head_count()); }},
        {"listed", [](const Ui& ui) { return std::to_string(ui.overview.list.size()); }},
        {"edited", [](const Ui& ui) { return std::to_string(ui.document.edited_count()); }},
        {"undo", [](const Ui& ui) { return ui.document.history().undo_label(); }},
        {"redo", [](const Ui& ui) { return ui.document.history().redo_label(); }},
        {"steps", [](const Ui& ui) { return std::to_string(ui.document.history().steps()); }},
        {"group", [](const Ui& ui) { return std::to_string(ui.document.group()); }},
        {"tile", [](const Ui& ui) { return std::to_string(ui.document.tile()); }},
        {"runs",
         [](const Ui& ui) { return std::to_string(ui.document.run_log() ? ui.document.run_log()->runs.size() : 0); }},
        {"differences",
         [](const Ui& ui) {
             return ui.document.comparison() ? std::to_string(ui.document.comparison()->diff.changed()) : "none";
         }},
        {"compared",
         [](const Ui& ui) {
             if (!ui.document.comparison()) return std::string("none");
             const ProfileDiff::Kept mean = ui.document.comparison()->diff.mean();
             char text[64];
             std::snprintf(text, sizeof text, "%.6f %.6f %.6f %.6f", mean.a_by_a, mean.a_by_b, mean.b_by_b,
                           mean.b_by_a);
             return std::string(text);
         }},
        {"messages",
         [](const Ui& ui) {
             std::string out;
             for (const Message& message : ui.document.messages()) out += message.text + " | ";
             return out;
         }},
        {"view.width", [](const Ui& ui) { return number(ui.head.view.x1 - ui.head.view.x0); }},
        {"view.left", [](const Ui& ui) { return number(ui.head.view.x0); }},
        {"maximised", [](const Ui& ui) { return ui.maximised; }},
        {"help", [](const Ui& ui) { return flag(ui.help); }},
        {"theme", [](const Ui& ui) { return std::string(ui.light() ? "light" : "dark"); }},
    };
    return all;
}

}  // namespace

std::string query(const Ui& ui, const std::string& name) {
    const auto found = getters().find(name);
    if (found == getters().end()) {
        std::string known;
        for (const auto& [other, getter] : getters()) known += (known.empty() ? "" : ", ") + other;
        fail("value", "must be one of " + known, name);
    }
    const bool always =
        name == "open" || name == "messages" || name == "help" || name == "theme" || name == "maximised";
    require(always || ui.document.has_profile(), name, "must be asked when a profile is open", "none");
    return found->second(ui);
}

}  // namespace paro::viewer
