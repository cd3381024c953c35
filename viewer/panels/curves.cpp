// Retained mass against density, its spread over the heads, and what the meter said step by step.
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "app/ui.h"
#include "imgui.h"
#include "implot.h"

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

void percent_axes(const char* x, const char* y, double low) {
    ImPlot::SetupAxes(x, y, ImPlotAxisFlags_NoHighlight, ImPlotAxisFlags_NoHighlight);
    ImPlot::SetupAxisFormat(ImAxis_X1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_Y1, percent_label);
    ImPlot::SetupAxesLimits(0.0, 100.0, low, 101.0, ImPlotCond_Always);
}

void draw_head_curves(Ui& ui, ImVec2 size) {
    Document& document = ui.document;
    const HeadMaps& maps = document.maps();
    if (!ImPlot::BeginPlot("##head_curves", size, kPlain)) return;
    double low = 100.0;
    for (const auto& order : maps.order) {
        if (order) low = std::min(low, 100.0 * order->curve[9]);
    }
    percent_axes("blocks computed", "attention kept", std::max(0.0, std::floor(low / 10.0) * 10.0 - 5.0));
    ImPlot::SetupLegend(ImPlotLocation_East, ImPlotLegendFlags_NoButtons | ImPlotLegendFlags_Outside);
    std::vector<double> xs, ys;
    for (int step = 1; step <= kDensitySteps; ++step) xs.push_back(100.0 * density_of_step(step));
    const AxisOrder own = document.heads()[document.selected()].order;
    for (std::size_t i = 0; i < 6; ++i) {
        if (!maps.order[i]) continue;
        ys.assign(maps.order[i]->curve.begin(), maps.order[i]->curve.end());
        for (double& y : ys) y *= 100.0;
        ImPlotSpec spec;
        spec.LineColor = to_vec4(order_color(static_cast<int>(i)));
        spec.LineWeight = ui.px(kAxisOrders[i] == own ? 3.0f : 1.3f);
        const std::string name(to_string(kAxisOrders[i]));
        ImPlot::PlotLine((kAxisOrders[i] == own ? name + " (chosen)" : name).c_str(), xs.data(), ys.data(),
                         static_cast<int>(xs.size()), spec);
    }
    double density = 100.0 * document.density(document.selected());
    bool clicked = false;
    static std::uint64_t drag = 0;
    if (ImPlot::DragLineX(1, &density, accent_color(ui), ui.px(1.5f), ImPlotDragToolFlags_None, &clicked)) {
        if (clicked || drag == 0) drag = ++ui.density.drag;
        document.set_density(Scope::head, density_of_step(step_of_density(density / 100.0)), drag);
    }
    if (!ImGui::IsMouseDown(ImGuiMouseButton_Left)) drag = 0;
    ImPlot::TagX(density, accent_color(ui), "%.1f %%", density);
    ui.anchor("curves.head", ImPlot::GetPlotPos(),
              {ImPlot::GetPlotPos().x + ImPlot::GetPlotSize().x, ImPlot::GetPlotPos().y + ImPlot::GetPlotSize().y});
    ImPlot::EndPlot();
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
    if (!ImPlot::BeginPlot("##distribution", size, kPlain)) return;
    ImPlot::SetupAxes("attention kept", "heads", ImPlotAxisFlags_NoHighlight, ImPlotAxisFlags_NoHighlight);
    ImPlot::SetupAxisFormat(ImAxis_X1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_Y1, whole_label);
    const double most = *std::ranges::max_element(stacked);
    ImPlot::SetupAxesLimits(100.0 * from, 100.0, 0.0, std::max(6.0, most * 1.15), ImPlotCond_Always);
    ImPlot::SetupLegend(ImPlotLocation_NorthWest, ImPlotLegendFlags_NoButtons);
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
    ImPlot::EndPlot();
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
        muted("No run log: run ComfyUI with the PARO Attention node, or open a runlog.jsonl.");
        return;
    }
    const StepSeries s = by_step(*run);
    if (s.step.empty()) {
        muted(run->sparse_calls() > 0 ? "No sparse call of this run was measured (choose another run under What ran)."
                                      : "No call of this run was sparse (choose another run under What ran).");
        return;
    }
    if (!ImPlot::BeginPlot("##history", size, kPlain)) return;
    ImPlot::SetupAxes("step", "attention kept", ImPlotAxisFlags_NoHighlight, ImPlotAxisFlags_NoHighlight);
    ImPlot::SetupAxisFormat(ImAxis_Y1, percent_label);
    ImPlot::SetupAxisFormat(ImAxis_X1, "%.0f");
    const double low = std::max(0.0, std::floor(*std::ranges::min_element(s.least) / 10.0) * 10.0 - 5.0);
    ImPlot::SetupAxesLimits(0.5, run->steps + 0.5, low, 101.0, ImPlotCond_Always);
    ImPlot::SetupLegend(ImPlotLocation_SouthEast, ImPlotLegendFlags_NoButtons);
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
    ImPlot::PlotLine(run->mask == "dynamic" ? "sampled, mean" : "planned, mean", s.step.data(), s.mean.data(), n, line);
    if (!s.error.empty()) {
        ImPlotSpec meter;
        meter.LineColor = warning_color(ui);
        meter.LineWeight = ui.px(2);
        meter.Marker = ImPlotMarker_Square;
        meter.MarkerSize = ui.px(2.5f);
        ImPlot::PlotLine("measured by the meter", s.error_step.data(), s.error.data(), static_cast<int>(s.error.size()),
                         meter);
    }
    ImPlot::EndPlot();
    ui.anchor("curves.history");
}

}  // namespace

void draw_curves(Ui& ui) {
    if (!ui.document.has_maps()) return;
    const ImVec2 room = ImGui::GetContentRegionAvail();
    if (room.x > ui.px(980)) {
        const float gap = ImGui::GetStyle().ItemSpacing.x;
        const ImVec2 size = {(room.x - 2.0f * gap) / 3.0f, room.y - ImGui::GetTextLineHeightWithSpacing()};
        const char* titles[] = {"This head, by order", "All heads", "By step, in the chosen run"};
        void (*draw[])(Ui&, ImVec2) = {draw_head_curves, draw_distribution, draw_history};
        for (int i = 0; i < 3; ++i) {
            if (i > 0) ImGui::SameLine();
            ImGui::BeginGroup();
            ImGui::TextUnformatted(titles[i]);
            draw[i](ui, size);
            ImGui::EndGroup();
        }
        return;
    }
    if (!ImGui::BeginTabBar("curves")) return;
    if (ImGui::BeginTabItem("This head")) {
        draw_head_curves(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    if (ImGui::BeginTabItem("All heads")) {
        draw_distribution(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    if (ImGui::BeginTabItem("By step")) {
        draw_history(ui, {-1, -1});
        ImGui::EndTabItem();
    }
    ImGui::EndTabBar();
}

}  // namespace paro::viewer
