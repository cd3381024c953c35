#include "app/theme.h"

#include <cstdarg>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "document/files/utf8.h"
#include "imgui.h"
#include "imgui_internal.h"
#include "implot.h"
#include "panels/ui.h"

namespace paro::viewer {

extern const unsigned char kFont[];
extern const int kFontSize;

namespace {

constexpr float kFontUnits = 15.0f;

ImVec4 rgb(int hex, float alpha = 1.0f) {
    return {static_cast<float>(hex >> 16 & 255) / 255.0f, static_cast<float>(hex >> 8 & 255) / 255.0f,
            static_cast<float>(hex & 255) / 255.0f, alpha};
}

void dark_colors(ImVec4* c) {
    ImGui::StyleColorsDark();
    c[ImGuiCol_WindowBg] = rgb(0x1b1d21);
    c[ImGuiCol_PopupBg] = rgb(0x24272d);
    c[ImGuiCol_MenuBarBg] = c[ImGuiCol_TitleBg] = c[ImGuiCol_TitleBgActive] = rgb(0x131518);
    c[ImGuiCol_FrameBg] = rgb(0x2c3038);
    c[ImGuiCol_FrameBgHovered] = rgb(0x383e49);
    c[ImGuiCol_FrameBgActive] = rgb(0x434b59);
    c[ImGuiCol_Button] = rgb(0x343a45);
    c[ImGuiCol_ButtonHovered] = rgb(0x434c5c);
    c[ImGuiCol_ButtonActive] = rgb(0x52607a);
    c[ImGuiCol_Header] = rgb(0x31405a);
    c[ImGuiCol_HeaderHovered] = rgb(0x3a4d6d);
    c[ImGuiCol_HeaderActive] = rgb(0x445980);
    c[ImGuiCol_Tab] = rgb(0x1b1d21);
    c[ImGuiCol_TabDimmed] = rgb(0x17191c);
    c[ImGuiCol_TabSelected] = c[ImGuiCol_TabDimmedSelected] = rgb(0x2b303a);
    c[ImGuiCol_TabHovered] = rgb(0x3a4d6d);
    c[ImGuiCol_CheckMark] = c[ImGuiCol_TabSelectedOverline] = rgb(0x6fa8ff);
    c[ImGuiCol_SliderGrab] = rgb(0x3569b5);
    c[ImGuiCol_SliderGrabActive] = rgb(0x3f7bd4);
    c[ImGuiCol_Border] = c[ImGuiCol_Separator] = rgb(0x434955);
    c[ImGuiCol_Text] = rgb(0xe6e8eb);
    c[ImGuiCol_TextDisabled] = rgb(0x9aa1ac);
    c[ImGuiCol_TableHeaderBg] = rgb(0x262a31);
}

void light_colors(ImVec4* c) {
    ImGui::StyleColorsLight();
    c[ImGuiCol_WindowBg] = rgb(0xfafafa);
    c[ImGuiCol_PopupBg] = rgb(0xffffff);
    c[ImGuiCol_MenuBarBg] = c[ImGuiCol_TitleBg] = c[ImGuiCol_TitleBgActive] = rgb(0xe6e8ec);
    c[ImGuiCol_FrameBg] = rgb(0xe9ebef);
    c[ImGuiCol_FrameBgHovered] = rgb(0xdde2ea);
    c[ImGuiCol_FrameBgActive] = rgb(0xcfd8e6);
    c[ImGuiCol_Button] = rgb(0xdfe3ea);
    c[ImGuiCol_ButtonHovered] = rgb(0xcfd8e6);
    c[ImGuiCol_ButtonActive] = rgb(0xb9c8de);
    c[ImGuiCol_Header] = rgb(0xcfdef5);
    c[ImGuiCol_HeaderHovered] = rgb(0xbcd2f2);
    c[ImGuiCol_HeaderActive] = rgb(0xa9c5ee);
    c[ImGuiCol_Tab] = c[ImGuiCol_TabDimmed] = rgb(0xeceef1);
    c[ImGuiCol_TabSelected] = c[ImGuiCol_TabDimmedSelected] = rgb(0xffffff);
    c[ImGuiCol_TabHovered] = rgb(0xbcd2f2);
    c[ImGuiCol_CheckMark] = c[ImGuiCol_TabSelectedOverline] = rgb(0x1f66c8);
    c[ImGuiCol_SliderGrab] = rgb(0x9dc0ef);
    c[ImGuiCol_SliderGrabActive] = rgb(0x7fadea);
    c[ImGuiCol_Border] = c[ImGuiCol_Separator] = rgb(0xc9ced6);
    c[ImGuiCol_Text] = rgb(0x1c2026);
    c[ImGuiCol_TextDisabled] = rgb(0x5f6873);
    c[ImGuiCol_TableHeaderBg] = rgb(0xeceef1);
}

}  // namespace

void load_font() {
    ImFontConfig config;
    config.FontDataOwnedByAtlas = false;
    ImFont* font =
        ImGui::GetIO().Fonts->AddFontFromMemoryTTF(const_cast<unsigned char*>(kFont), kFontSize, kFontUnits, &config);
    // The usual sign for a letter that no font has is higher than a line.
    font->FallbackChar = '?';
}

namespace {

bool letters_missing() {
    constexpr auto kNotFound = static_cast<ImU16>(-2);
    const auto& pool = ImGui::GetIO().Fonts->Builder->BakedPool;
    for (int i = 0; i < pool.Size; ++i) {
        const ImVector<ImU16>& glyph = ImGui::GetIO().Fonts->Builder->BakedPool[i].IndexLookup;
        for (int code = 0x250; code < glyph.Size; ++code) {
            if (glyph[code] == kNotFound && code != 0xfffd) return true;
        }
    }
    return false;
}

std::vector<std::filesystem::path> system_fonts() {
    if (const auto named = path_from_environment("PARO_VIEWER_FONT"); !named.empty()) return {named};
#ifdef _WIN32
    const std::filesystem::path windows = path_from_environment("WINDIR");
    const std::filesystem::path fonts = (windows.empty() ? std::filesystem::path("C:/Windows") : windows) / "Fonts";
    return {fonts / "msyh.ttc", fonts / "msyh.ttf", fonts / "simhei.ttf", fonts / "YuGothM.ttc", fonts / "malgun.ttf"};
#elif defined(__APPLE__)
    return {"/System/Library/Fonts/Hiragino Sans GB.ttc", "/System/Library/Fonts/STHeiti Medium.ttc",
            "/Library/Fonts/Arial Unicode.ttf", "/System/Library/Fonts/Supplemental/Arial Unicode.ttf"};
#else
    return {"/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
            "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
            "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
            "/usr/share/fonts/wenquanyi/wqy-microhei/wqy-microhei.ttc",
            "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
            "/usr/share/fonts/truetype/droid/DroidSansFallback.ttf"};
#endif
}

bool is_font(const std::filesystem::path& path) {
    std::string begin(4, '\0');
    std::ifstream(path, std::ios::binary).read(begin.data(), 4);
    return begin == "OTTO" || begin == "ttcf" || begin == "true" || begin == std::string("\0\1\0\0", 4);
}

}  // namespace

void find_missing_letters() {
    static bool tried = false;
    if (tried || !letters_missing()) return;
    tried = true;
    for (const std::filesystem::path& path : system_fonts()) {
        if (!is_font(path)) continue;
        ImFontConfig config;
        config.MergeMode = true;
        config.Flags |= ImFontFlags_NoLoadError;
        if (ImGui::GetIO().Fonts->AddFontFromFileTTF(utf8(path).c_str(), 0.0f, &config) != nullptr) return;
    }
}

void apply_theme(Theme theme, float scale) {
    ImGuiStyle& style = ImGui::GetStyle();
    style = ImGuiStyle();
    style.FontSizeBase = kFontUnits;
    style.FontScaleMain = scale;
    style.WindowPadding = {8, 6};
    style.FramePadding = {7, 3};
    style.ItemSpacing = {7, 5};
    style.ItemInnerSpacing = {6, 4};
    style.FrameRounding = 4;
    style.TabRounding = 4;
    style.PopupRounding = 4;
    style.GrabRounding = 3;
    style.GrabMinSize = 14;
    style.FrameBorderSize = 1;
    style.WindowBorderSize = 1;
    style.ScrollbarSize = 11;
    style.DockingSeparatorSize = 3;
    if (theme == Theme::dark) {
        dark_colors(style.Colors);
    } else {
        light_colors(style.Colors);
    }
    style.ScaleAllSizes(scale);
    ImPlotStyle& plot = ImPlot::GetStyle();
    plot = ImPlotStyle();
    theme == Theme::dark ? ImPlot::StyleColorsDark() : ImPlot::StyleColorsLight();
    // No layers beneath plots: in software each costs as much as the lines.
    plot.Colors[ImPlotCol_FrameBg] = plot.Colors[ImPlotCol_PlotBg] = {0, 0, 0, 0};
    plot.PlotPadding = {6 * scale, 4 * scale};
    plot.LabelPadding = {3 * scale, 3 * scale};
    plot.LegendPadding = {5 * scale, 5 * scale};
    plot.LegendInnerPadding = {4 * scale, 3 * scale};
    plot.AnnotationPadding = {5 * scale, 2 * scale};
    plot.PlotMinSize = {60 * scale, 60 * scale};
}

ImU32 to_u32(Rgba color) { return IM_COL32(color.r, color.g, color.b, color.a); }

ImVec4 to_vec4(Rgba color) { return ImGui::ColorConvertU32ToFloat4(to_u32(color)); }

ImU32 path_color(Path path) {
    // Grey for dense, blue for watching, green for sparse, orange for what went wrong: told apart by lightness too.
    constexpr Rgba kColors[] = {{126, 132, 142}, {86, 180, 233}, {0, 158, 115}, {230, 126, 0}};
    return to_u32(kColors[static_cast<int>(path)]);
}

ImVec4 accent_color(const Ui& ui) { return ui.light() ? rgb(0x1f66c8) : rgb(0x8ab8ff); }
ImVec4 warning_color(const Ui& ui) { return ui.light() ? rgb(0xa34d00) : rgb(0xffb454); }

void tooltip(const char* text) {
    if (!ImGui::BeginItemTooltip()) return;
    ImGui::PushTextWrapPos(ImGui::GetFontSize() * 24.0f);
    ImGui::TextUnformatted(text);
    ImGui::PopTextWrapPos();
    ImGui::EndTooltip();
}

void muted(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ImGui::PushStyleColor(ImGuiCol_Text, ImGui::GetStyleColorVec4(ImGuiCol_TextDisabled));
    ImGui::TextV(format, arguments);
    ImGui::PopStyleColor();
    va_end(arguments);
}

}  // namespace paro::viewer
