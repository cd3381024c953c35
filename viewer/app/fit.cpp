// Texts and rows of widgets in as much room as there is: shortened in the middle, wrapped, or on the next line.
#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "imgui.h"
#include "panels/ui.h"

namespace paro::viewer {

namespace {

constexpr const char* kEllipsis = "\xe2\x80\xa6";

float width_of(const std::string& text) { return ImGui::CalcTextSize(text.data(), text.data() + text.size()).x; }

bool begins_letter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

// `letters` of UTF-8 text: the first half from its beginning, the rest from its end, where names of files and layers
// differ.
std::string both_ends(const std::string& text, std::size_t letters) {
    std::size_t head = 0, tail = text.size();
    for (std::size_t i = 0; i < letters / 2 && head < text.size(); ++i) {
        for (++head; head < text.size() && !begins_letter(text[head]); ++head) {
        }
    }
    for (std::size_t i = letters / 2; i < letters && tail > head; ++i) {
        for (--tail; tail > head && !begins_letter(text[tail]); --tail) {
        }
    }
    return text.substr(0, head) + kEllipsis + text.substr(tail);
}

}  // namespace

std::string fitted(const std::string& text, float width) {
    if (width_of(text) <= width) return text;
    std::size_t fits = 0, fails = static_cast<std::size_t>(std::ranges::count_if(text, begins_letter));
    while (fits + 1 < fails) {
        const std::size_t middle = (fits + fails) / 2;
        (width_of(both_ends(text, middle)) <= width ? fits : fails) = middle;
    }
    return both_ends(text, fits);
}

void fitted_text(const std::string& text, float width) {
    const std::string shown = fitted(text, width);
    ImGui::TextUnformatted(shown.c_str());
    if (shown != text) tooltip(text.c_str());
}

std::string fullest(std::initializer_list<std::string> texts, float width) {
    for (const std::string& text : texts) {
        if (width_of(text) <= width) return text;
    }
    return {};
}

void flow(float width, float spacing) {
    const float gap = spacing < 0.0f ? ImGui::GetStyle().ItemSpacing.x : spacing;
    const float right = ImGui::GetCursorScreenPos().x + ImGui::GetContentRegionAvail().x;
    if (ImGui::GetItemRectMax().x + gap + width <= right) ImGui::SameLine(0.0f, gap);
}

bool begin_part(const char* name, ImVec2 size) {
    ImGui::PushStyleVar(ImGuiStyleVar_WindowPadding, ImVec2(ImGui::GetStyle().WindowPadding.x, 0.0f));
    const bool shown = ImGui::BeginChild(name, size, ImGuiChildFlags_AlwaysUseWindowPadding);
    ImGui::PopStyleVar();
    return shown;
}

float text_width(const std::string& text) { return width_of(text); }

float button_width(const char* label) {
    return ImGui::CalcTextSize(label, nullptr, true).x + 2.0f * ImGui::GetStyle().FramePadding.x;
}

float checkbox_width(const char* label) {
    return ImGui::GetFrameHeight() + ImGui::GetStyle().ItemInnerSpacing.x + ImGui::CalcTextSize(label, nullptr, true).x;
}

void wrapped(ImVec4 color, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ImGui::PushStyleColor(ImGuiCol_Text, color);
    ImGui::PushTextWrapPos(0.0f);
    ImGui::TextV(format, arguments);
    ImGui::PopTextWrapPos();
    ImGui::PopStyleColor();
    va_end(arguments);
}

void muted_wrapped(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char text[1024];
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wrapped(ImGui::GetStyleColorVec4(ImGuiCol_TextDisabled), "%s", text);
}

}  // namespace paro::viewer
