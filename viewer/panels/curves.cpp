// Retained mass against density, its spread over the heads, and what the meter said step by step.
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "imgui.h"
#include "implot.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

constexpr ImPlotFlags kPlain = ImPlotFlags_NoMenus | ImPlotFlags_NoBoxSelect | ImPlotFlags_NoMouseText;

int percent_label(double value, char* out, int size, void*) {
    return std::snprintf(out, static_cast<std::size_t>(size), "%.0f %%", value);
}

// Heads are counted in whole ones.
int whole_label(double value, char* out, int size, void*) {
    const bool whole = std::abs(value - std::round(value)) < 1e-6;
    if (!whole) return out[0] = 0;
    return std::snprintf(out, static_cast<std::size_t>(size), "%.0f", value);
}

struct Entry {
    ImVec4 color;
    std::string name;
    bool chosen = false;
    // In a plot's own legend, which knows no emphasis.
    std::string told() const { return chosen ? name + " (chosen)" : name; }
};

// Names and colours in lines above a plot that is too small to hold them.
void draw_names(const Ui& ui, const char* x, const char* y, const std::vector<Entry>& entries) {
    const float box = ui.px(10);
    muted_wrapped("%s by %s", y, x);
    for (const Entry& entry : entries) {
        flow(box + ui.px(3) + text_width(entry.name));
        const ImVec2 at = ImGui::GetCursorScreenPos();
        const float top = at.y + (ImGui::GetTextLineHeight() - box) / 2;
        ImGui::GetWindowDrawList()->AddRectFilled({at.x, top}, {at.x + box, top + box},
                                                  ImGui::ColorConvertFloat4ToU32(entry.color), ui.px(2));
        ImGui::Dummy({box, box});
        ImGui::SameLine(0.0f, ui.px(3));
        ImGui::TextColored(entry.chosen ? accent_color(ui) : ImGui::GetStyleColorVec4(ImGuiCol_Text), "%s",
                           entry.name.c_str());
    }
}

// BeginPlot, axes and legend. In a small plot the axes' names and the legend would take most of the room, or stand on
// each other: lines above it take them.
bool begin_plot(const Ui& ui, const char* id, ImVec2 size, const char* x, const char* y,
                const std::vector<Entry>& entries, ImPlotLocation place, ImPlotLegendFlags legend = 0) {
    const ImVec2 room = ImGui::GetContentRegionAvail();
    if (size.x <= 0.0f) size.x = room.x;
    size.x = std::min(size.x, room.x);
    if (size.y <= 0.0f) size.y = room.y;
    const float rows = static_cast<float>(entries.size()) * ImGui::GetTextLineHeightWithSpacing();
    const bool small = size.x < ui.px(420) || size.y < std::max(ui.px(210), rows + ui.px(80));
    if (small) {
        const float above = ImGui::GetCursorPosY();
        draw_names(ui, x, y, entries);
        size.y = std::max(size.y - (ImGui::GetCursorPosY() - above), ui.px(90));
    }
    // Half of the last tick's label reaches beyond the axis.
    ImPlot::PushStyleVar(ImPlotStyleVar_PlotPadding, ImVec2(text_width("100 %") / 2 + ui.px(4), ui.px(4)));
    if (!ImPlot::BeginPlot(id, size, small ? kPlain | ImPlotFlags_NoLegend : kPlain)) {
        ImPlot::PopStyleVar();
        return false;
    }
    ImPlot::SetupAxes(small ? nullptr : x, small ? nullptr : y, ImPlotAxisFlags_NoHighlight,
                      ImPlotAxisFlags_NoHighlight);
    ImPlot::SetupLegend(place, legend | ImPlotLegendFlags_NoButtons);
    return true;
}

void end_plot() {
    ImPlot::EndPlot();
    ImPlot::PopStyleVar();
}

void draw_head_curves(Ui& ui, ImVec2 size) {
    Document& document = ui.document;
    const HeadMaps& maps = document.maps();
    const AxisOrder own = document.heads()[document.selected()].order;
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < 6; ++i) {
        entries.push_back(
            {to_vec4(order_color(static_cast<int>(i))), std::string(to_string(kAxisOrders[i])), kAxisOrders[i] == own});
    }
    if (!begin_plot(ui, "##head_curves", size, "blocks computed", "attention kept", entries, ImPlotLocation_East,
                    ImPlotLegendFlags_Outside)) {
        return;
    }
    double low = 100.0;
    for (const auto& order : maps.order) {
        if (order) low = std::min(low, 100.0 * order->curve[9]);
    }
    ImPlot::SetupAxisFormat(ImAxis_X1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_Y1, percent_label);
    ImPlot::SetupAxesLimits(0.0, 100.0, std::max(0.0, std::floor(low / 10.0) * 10.0 - 5.0), 101.0, ImPlotCond_Always);
    std::vector<double> xs, ys;
    for (int step = 1; step <= kDensitySteps; ++step) xs.push_back(100.0 * density_of_step(step));
    for (std::size_t i = 0; i < 6; ++i) {
        if (!maps.order[i]) continue;
        ys.assign(maps.order[i]->curve.begin(), maps.order[i]->curve.end());
        for (double& y : ys) y *= 100.0;
        ImPlotSpec spec;
        spec.LineColor = entries[i].color;
        spec.LineWeight = ui.px(kAxisOrders[i] == own ? 3.0f : 1.3f);
        ImPlot::PlotLine(entries[i].told().c_str(), xs.data(), ys.data(), static_cast<int>(xs.size()), spec);
    }
    double density = 100.0 * document.density(document.selected());
    bool clicked = false;
    static std::uint64_t drag = 0;
    if (ImPlot::DragLineX(1, &density, accent_color(ui), ui.px(1.5f), ImPlotDragToolFlags_None, &clicked)) {
        if (clicked || drag == 0) drag = ++ui.density.drag;
        document.set_density(Scope::head, density_of_step(step_of_density(density / 100.0)), drag);
    }
    if (!ImGui::IsMouseDown(ImGuiMouseButton_Left)) drag = 0;
    // Inside the plot: beneath it, it would cover the axis and at its end the legend.
    const ImPlotRect limits = ImPlot::GetPlotLimits();
    ImPlot::Annotation(density, limits.Y.Min, accent_color(ui), {0, -ui.px(4)}, true, "%.1f %%", density);
    ui.anchor("curves.head", ImPlot::GetPlotPos(),
              {ImPlot::GetPlotPos().x + ImPlot::GetPlotSize().x, ImPlot::GetPlotPos().y + ImPlot::GetPlotSize().y});
    end_plot();
}

// Heads by what they keep, stacked by order.
void draw_distribution(Ui& ui, ImVec2 size) {
    const Document& document = ui.document;
    constexpr int kBins = 25;
    std::vector<double> stacked(kBins, 0.0), xs;
    std::vector<std::vector<double>> tops;
    double least = 1.0;
    for (std::size_t i = 0; i < document.head_count(); ++i) least = std::min(least, document.retained(i));
    const double from = std::min(std::floor(least * 10.0) / 10.0, 0.9), width = (1.0 - from) / kBins;
    for (int bin = 0; bin < kBins; ++bin) xs.push_back(100.0 * (from + (bin + 0.5) * width));
    for (std::size_t order = 0; order < 6; ++order) {
        for (std::size_t i = 0; i < document.head_count(); ++i) {
            if (document.heads()[i].order != kAxisOrders[order]) continue;
            const auto bin = static_cast<int>((document.retained(i) - from) / width);
            stacked[static_cast<std::size_t>(std::clamp(bin, 0, kBins - 1))] += 1.0;
        }
        tops.push_back(stacked);
    }
    std::vector<Entry> entries = {{accent_color(ui), "selected head"}};
    for (std::size_t order = 0; order < 6; ++order) {
        entries.push_back({to_vec4(order_color(static_cast<int>(order))), std::string(to_string(kAxisOrders[order]))});
    }
    if (!begin_plot(ui, "##distribution", size, "attention kept", "heads", entries, ImPlotLocation_NorthWest)) return;
    ImPlot::SetupAxisFormat(ImAxis_X1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_Y1, whole_label);
    const double most = *std::ranges::max_element(stacked);
    ImPlot::SetupAxesLimits(100.0 * from, 100.0, 0.0, std::max(6.0, most * 1.15), ImPlotCond_Always);
    for (std::size_t order = 6; order-- > 0;) {
        ImPlotSpec spec;
        spec.FillColor = spec.LineColor = to_vec4(order_color(static_cast<int>(order)));
        ImPlot::PlotBars(std::string(to_string(kAxisOrders[order])).c_str(), xs.data(), tops[order].data(), kBins,
                         100.0 * width * 0.9, spec);
    }
    const double mine = 100.0 * document.retained(document.selected());
    ImPlotSpec line;
    line.LineColor = accent_color(ui);
    line.LineWeight = ui.px(1.5f);
    ImPlot::PlotInfLines("selected head", &mine, 1, line);
    end_plot();
}

struct StepSeries {
    std::vector<double> step, mean, least, most, error_step, error;
};

StepSeries by_step(const Run& run) {
    struct Sum {
        double sum = 0, least = 1, most = 0, error = 0;
        int count = 0, errors = 0;
    };
    std::map<int, Sum> sums;
    for (const RunLine& line : run.lines) {
        Sum& sum = sums[line.step];
        if (line.path == Path::sparse && line.retained) {
            sum.sum += *line.retained;
            sum.least = std::min(sum.least, *line.retained);
            sum.most = std::max(sum.most, *line.retained);
            ++sum.count;
        }
        if (line.error) {
            sum.error += *line.error;
            ++sum.errors;
        }
    }
    StepSeries out;
    for (const auto& [step, sum] : sums) {
        if (sum.count > 0) {
            out.step.push_back(step + 1);
            out.mean.push_back(100.0 * sum.sum / sum.count);
            out.least.push_back(100.0 * sum.least);
            out.most.push_back(100.0 * sum.most);
        }
        if (sum.errors > 0) {
            out.error_step.push_back(step + 1);
            out.error.push_back(100.0 * (1.0 - sum.error / sum.errors));
        }
    }
    return out;
}

void draw_history(Ui& ui, ImVec2 size) {
    const Run* run = ui.document.run();
    if (run == nullptr) {
        muted_wrapped("No run log: run ComfyUI with the PARO Attention node, or open a runlog.jsonl.");
        return;
    }
    const StepSeries s = by_step(*run);
    if (s.step.empty()) {
        muted_wrapped("%s", run->sparse_calls() > 0
                                ? "No sparse call of this run was measured (choose another run under What ran)."
                                : "No call of this run was sparse (choose another run under What ran).");
        return;
    }
    const std::string mean = run->mask == "dynamic" ? "sampled, mean" : "planned, mean";
    std::vector<Entry> entries = {{to_vec4(order_color(2)), "least to most, by layer"}, {accent_color(ui), mean}};
    if (!s.error.empty()) entries.push_back({warning_color(ui), "measured by the meter"});
    if (!begin_plot(ui, "##history", size, "step", "attention kept", entries, ImPlotLocation_SouthEast)) return;
    ImPlot::SetupAxisFormat(ImAxis_Y1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_X1, "%.0f");
    const double low = std::max(0.0, std::floor(*std::ranges::min_element(s.least) / 10.0) * 10.0 - 5.0);
    ImPlot::SetupAxesLimits(0.5, run->steps + 0.5, low, 101.0, ImPlotCond_Always);
    const auto n = static_cast<int>(s.step.size());
    ImPlotSpec band;
    band.FillColor = band.LineColor = to_vec4(order_color(2));
    band.FillAlpha = 0.3f;
    ImPlot::PlotShaded("least to most, by layer", s.step.data(), s.least.data(), s.most.data(), n, band);
    ImPlotSpec line;
    line.LineColor = accent_color(ui);
    line.LineWeight = ui.px(2);
    line.Marker = ImPlotMarker_Circle;
    line.MarkerSize = ui.px(2.5f);
    ImPlot::PlotLine(mean.c_str(), s.step.data(), s.mean.data(), n, line);
    if (!s.error.empty()) {
        ImPlotSpec meter;
        meter.LineColor = warning_color(ui);
        meter.LineWeight = ui.px(2);
        meter.Marker = ImPlotMarker_Square;
        meter.MarkerSize = ui.px(2.5f);
        ImPlot::PlotLine("measured by the meter", s.error_step.data(), s.error.data(), static_cast<int>(s.error.size()),
                         meter);
    }
    end_plot();
    ui.anchor("curves.history");
}

}  // namespace

void draw_curves(Ui& ui) {
    if (!ui.document.has_maps()) return;
    const ImVec2 room = ImGui::GetContentRegionAvail();
    if (room.x > ui.px(980)) {
        const float gap = ImGui::GetStyle().ItemSpacing.x;
        const ImVec2 size = {(room.x - 2.0f * gap) / 3.0f, room.y};
        const char* titles[] = {"This head, by order", "All heads", "By step, in the chosen run"};
        void (*draw[])(Ui&, ImVec2) = {draw_head_curves, draw_distribution, draw_history};
        for (int i = 0; i < 3; ++i) {
            if (i > 0) ImGui::SameLine();
            // A window of its own, at whose edge texts are wrapped.
            if (begin_part(titles[i], {size.x, room.y})) {
                ImGui::TextUnformatted(titles[i]);
                draw[i](ui, {0, 0});
            }
            ImGui::EndChild();
        }
        return;
    }
    if (!ImGui::BeginTabBar("curves")) return;
    if (ImGui::BeginTabItem("This head")) {
        draw_head_curves(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    ui.anchor("curves.tab_head");
    if (ImGui::BeginTabItem("All heads")) {
        draw_distribution(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    ui.anchor("curves.tab_all");
    if (ImGui::BeginTabItem("By step")) {
        draw_history(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    ui.anchor("curves.tab_step");
    ImGui::EndTabBar();
}

}  // namespace paro::viewer
