// What ran: by layer, head and step, dense or sparse, and why; from the run log.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "document/files/utf8.h"
#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

// Lines of a run by layer and step; heads may have lines of their own.
struct Matrix {
    const Run* run = nullptr;
    std::size_t lines = 0;
    std::vector<std::vector<std::vector<const RunLine*>>> cell;  // [layer][step]
};

const Matrix& matrix_of(const Run& run) {
    static Matrix matrix;
    if (matrix.run == &run && matrix.lines == run.lines.size()) return matrix;
    matrix = {&run, run.lines.size(), {}};
    std::map<std::string_view, std::size_t> row;
    for (std::size_t i = 0; i < run.layers.size(); ++i) row[run.layers[i]] = i;
    matrix.cell.assign(run.layers.size(),
                       std::vector<std::vector<const RunLine*>>(static_cast<std::size_t>(run.steps)));
    for (const RunLine& line : run.lines) {
        matrix.cell[row.at(line.layer)][static_cast<std::size_t>(line.step)].push_back(&line);
    }
    return matrix;
}

std::string heads_text(const std::vector<int>& heads) {
    if (heads.empty()) return "all heads";
    std::string out = heads.size() == 1 ? "head " : "heads ";
    for (std::size_t i = 0; i < heads.size(); ++i) {
        std::size_t end = i;
        while (end + 1 < heads.size() && heads[end + 1] == heads[end] + 1) ++end;
        out += (i > 0 ? ", " : "") + std::to_string(heads[i]);
        if (end > i) out += "-" + std::to_string(heads[end]);
        i = end;
    }
    return out;
}

void explain(const RunLine& line) {
    if (!ImGui::BeginTooltip()) return;
    ImGui::Text("%s, step %d (sigma %.3g), %s", line.layer.c_str(), line.step + 1, line.sigma,
                heads_text(line.heads).c_str());
    ImGui::Text("%s: %s", std::string(to_string(line.path)).c_str(), std::string(explain(line.path)).c_str());
    if (!line.reason.empty()) {
        ImGui::PushTextWrapPos(ImGui::GetFontSize() * 32.0f);
        ImGui::Text("why: %s", line.reason.c_str());
        ImGui::PopTextWrapPos();
    }
    if (line.path == Path::sparse) {
        if (line.retained) {
            ImGui::Text("density %.1f %%, keeps %.1f %%", 100.0 * line.density, 100.0 * *line.retained);
        } else {
            ImGui::Text("density %.1f %%, what it keeps was not measured", 100.0 * line.density);
        }
    }
    if (line.error) ImGui::Text("measured: the output is off by %.1f %%", 100.0 * *line.error);
    ImGui::EndTooltip();
}

void draw_choice(Ui& ui) {
    Document& document = ui.document;
    const RunLog& log = *document.run_log();
    const Run* run = document.run();
    ImGui::SetNextItemWidth(std::min(ImGui::GetContentRegionAvail().x, ui.px(430)));
    const std::string current =
        run == nullptr ? "choose a run" : "run " + std::to_string(document.run_index() + 1) + ": " + run->title();
    const float arrow = ImGui::GetFrameHeight() + 2.0f * ImGui::GetStyle().FramePadding.x;
    if (ImGui::BeginCombo("##run", fitted(current, ImGui::CalcItemWidth() - arrow).c_str())) {
        for (int i = static_cast<int>(log.runs.size()) - 1; i >= 0; --i) {
            const Run& other = log.runs[static_cast<std::size_t>(i)];
            const bool mine = other.fingerprint == document.base().model.fingerprint;
            const std::string label =
                "run " + std::to_string(i + 1) + ": " + other.title() + (mine ? "" : " (another model)");
            if (ImGui::Selectable(label.c_str(), i == document.run_index())) document.set_run(i);
        }
        ImGui::EndCombo();
    }
    ui.anchor("ran.run");
    tooltip(utf8(document.files().run_log_path).c_str());
}

void draw_path_legend(Ui& ui, const Run& run) {
    const float box = ImGui::GetTextLineHeight() * 0.7f;
    for (const Path path : kPaths) {
        const auto found = run.paths.find(std::string(to_string(path)));
        const std::string text =
            std::string(to_string(path)) + ' ' + std::to_string(found == run.paths.end() ? 0 : found->second);
        if (path != Path::dense) flow(box + ui.px(4) + text_width(text), ui.px(12));
        const ImVec2 at = ImGui::GetCursorScreenPos();
        ImGui::GetWindowDrawList()->AddRectFilled({at.x, at.y + box * 0.25f}, {at.x + box, at.y + box * 1.25f},
                                                  path_color(path), ui.px(2));
        ImGui::Dummy({box, box});
        ImGui::SameLine(0.0f, ui.px(4));
        muted("%s", text.c_str());
        tooltip(std::string(explain(path)).c_str());
    }
}

// One cell: its lines side by side where heads went different ways.
void draw_cell(const std::vector<const RunLine*>& lines, ImVec2 min, ImVec2 max, bool hovered) {
    ImDrawList* list = ImGui::GetWindowDrawList();
    std::size_t heads = 0;
    for (const RunLine* line : lines) heads += std::max<std::size_t>(1, line->heads.size());
    float y = min.y;
    for (const RunLine* line : lines) {
        const float share =
            static_cast<float>(std::max<std::size_t>(1, line->heads.size())) / static_cast<float>(heads);
        const float bottom = y + (max.y - min.y) * share;
        list->AddRectFilled({min.x, y}, {max.x, bottom}, path_color(line->path));
        if (hovered && ImGui::IsMouseHoveringRect({min.x, y}, {max.x, bottom})) explain(*line);
        y = bottom;
    }
}

void draw_matrix(Ui& ui, const Run& run) {
    Document& document = ui.document;
    const Matrix& matrix = matrix_of(run);
    const float line = ImGui::GetTextLineHeight();
    const ImVec2 origin = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    float label = text_width("step");
    for (const std::string& layer : run.layers) label = std::max(label, text_width(layer));
    label = std::min(label + ui.px(8), room.x * 0.4f);
    const auto steps = static_cast<float>(std::max(1, run.steps)), layers = static_cast<float>(run.layers.size());
    const float step_w = std::clamp((room.x - label) / steps, 4.0f, ui.px(34));
    const float row_h =
        std::floor(std::clamp((room.y - line - ui.px(4)) / std::max(1.0f, layers), ui.px(5), line + ui.px(5)));
    const float gap = step_w > 8.0f ? 1.0f : 0.0f;
    ImDrawList* list = ImGui::GetWindowDrawList();
    const bool hovered = ImGui::IsWindowHovered();
    const std::string& selected = document.base().layers[document.layer_of(document.selected())].id;
    for (std::size_t row = 0; row < run.layers.size(); ++row) {
        const float y = origin.y + row_h * static_cast<float>(row);
        const bool own = run.layers[row] == selected;
        if (row_h >= line * 0.8f || (own && row_h >= 3.0f)) {
            const bool fits = row_h >= line * 0.8f;
            list->AddText({origin.x, y + (fits ? (row_h - line) / 2 : -line / 3)},
                          own ? ImGui::GetColorU32(accent_color(ui)) : ImGui::GetColorU32(ImGuiCol_TextDisabled),
                          fitted(run.layers[row], label - ui.px(6)).c_str());
        }
        for (int step = 0; step < run.steps; ++step) {
            const ImVec2 min = {origin.x + label + step_w * static_cast<float>(step), y};
            draw_cell(matrix.cell[row][static_cast<std::size_t>(step)], min, {min.x + step_w - gap, y + row_h - gap},
                      hovered);
        }
        if (own) {
            list->AddRect({origin.x + label - 1, y - 1}, {origin.x + label + step_w * steps, y + row_h},
                          ImGui::GetColorU32(accent_color(ui)));
        }
    }
    const float bottom = origin.y + row_h * layers;
    float free = -1e9f;
    for (int step = 0; step < run.steps; ++step) {
        const std::string text = std::to_string(step + 1);
        const float x =
            origin.x + label + step_w * (static_cast<float>(step) + 0.5f) - ImGui::CalcTextSize(text.c_str()).x / 2;
        if (x < free || x + text_width(text) > origin.x + room.x) continue;
        list->AddText({x, bottom + ui.px(2)}, ImGui::GetColorU32(ImGuiCol_TextDisabled), text.c_str());
        free = x + ImGui::CalcTextSize(text.c_str()).x + ui.px(6);
    }
    list->AddText({origin.x, bottom + ui.px(2)}, ImGui::GetColorU32(ImGuiCol_TextDisabled), "step");
    ImGui::Dummy({label + step_w * steps, row_h * layers + line + ui.px(4)});
    ui.anchor("ran.matrix");
}

void draw_reasons(Ui& ui, const Run& run) {
    if (run.profile.size() > 0) muted_wrapped("profile: %s", run.profile.c_str());
    if (run.ended) {
        muted_wrapped("%s, tail %s, tile %d x %d, density %.1f %%", run.precision.c_str(), run.tail ? "on" : "off",
                      run.block_q, run.block_kv, 100.0 * run.density);
    }
    if (run.mask == "dynamic")
        muted_wrapped("Every call found its own masks: those in the pictures are the profile's.");
    ImGui::Spacing();
    ImGui::TextUnformatted("Reasons");
    if (run.reasons.empty()) muted_wrapped("Nothing was refused: every call ran as planned.");
    for (const auto& [reason, count] : run.reasons) {
        ImGui::TextColored(warning_color(ui), "%lld x", static_cast<long long>(count));
        ImGui::SameLine();
        ImGui::TextWrapped("%s", reason.c_str());
    }
}

}  // namespace

void draw_ran(Ui& ui) {
    const RunLog* log = ui.document.run_log();
    if (log == nullptr || log->runs.empty()) {
        ImGui::TextWrapped(
            "No run log yet. ComfyUI writes output/paro/runlog.jsonl while the PARO Attention node runs; "
            "it is found beside the profile, or opened here.");
        if (ImGui::Button("Open run log...")) ui.dialog = DialogKind::run_log;
        ui.anchor("ran.open");
        return;
    }
    draw_choice(ui);
    const Run* run = ui.document.run();
    if (run == nullptr) return;
    const float side = ui.px(230);
    const ImVec2 room = ImGui::GetContentRegionAvail();
    const bool beside = room.x > ui.px(560);
    if (ImGui::BeginChild("matrix", {beside ? room.x - side : 0.0f, beside ? 0.0f : room.y * 0.7f})) {
        draw_path_legend(ui, *run);
        draw_matrix(ui, *run);
    }
    ImGui::EndChild();
    if (beside) ImGui::SameLine();
    if (begin_part("reasons", {0, 0})) draw_reasons(ui, *run);
    ImGui::EndChild();
}

}  // namespace paro::viewer
