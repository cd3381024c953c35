#include "app/readable.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "imgui.h"
#include "imgui_internal.h"

namespace paro::viewer {

namespace {

constexpr float kTouch = 1.0f;         // pixels that letters may share, from rounding and soft edges
constexpr float kCovered = 0.3f;       // share of a letter that lines may cross
constexpr float kOpaque = 0.6f * 255;  // alpha from which a shape hides what it is drawn on

struct Letter {
    Rect ink{};                        // what is left of it within the clip rectangle
    float cut_x = 0.0f, cut_y = 0.0f;  // pixels that are cut off
    float covered = 0.0f;              // share that later shapes cover
    bool hidden = false;               // beneath a dialog, a menu or a tooltip
};

struct Writing {
    DrawnText drawn;
    std::vector<Letter> letters;
    const ImGuiWindow* window = nullptr;
    float right = 0.0f;  // edge at which what follows the last letter would be cut off
    // Where the next letter of the same text would stand, along the direction of writing.
    float pen = 0.0f, base = 0.0f, space = 4.0f;
    bool vertical = false;
    bool open = true;  // nothing else was drawn since
    bool seen() const {
        return std::ranges::any_of(letters, [](const Letter& letter) { return !letter.hidden; });
    }
};

Rect joined(const Rect& a, const Rect& b) {
    return {{std::min(a.min.x, b.min.x), std::min(a.min.y, b.min.y)},
            {std::max(a.max.x, b.max.x), std::max(a.max.y, b.max.y)}};
}

bool meet(const Rect& a, const Rect& b, float by) {
    return std::min(a.max.x, b.max.x) - std::max(a.min.x, b.min.x) > by &&
           std::min(a.max.y, b.max.y) - std::max(a.min.y, b.min.y) > by;
}

bool inside(const Rect& a, const Rect& outer) {
    return a.min.x >= outer.min.x - 1 && a.min.y >= outer.min.y - 1 && a.max.x <= outer.max.x + 1 &&
           a.max.y <= outer.max.y + 1;
}

// Floats above the others: covering what lies beneath is its purpose.
bool floats(const ImGuiWindow* root) {
    constexpr ImGuiWindowFlags kAbove =
        ImGuiWindowFlags_Popup | ImGuiWindowFlags_Modal | ImGuiWindowFlags_Tooltip | ImGuiWindowFlags_NoDocking;
    return root != nullptr && (root->Flags & kAbove) != 0;
}

// Area of a triangle within a rectangle, by cutting it at the four sides.
float area_within(const ImVec2* triangle, const Rect& rect) {
    ImVec2 points[8] = {triangle[0], triangle[1], triangle[2]}, kept[8];
    int count = 3;
    for (int side = 0; side < 4 && count > 0; ++side) {
        const auto room = [&](const ImVec2& p) {
            return side == 0   ? p.x - rect.min.x
                   : side == 1 ? rect.max.x - p.x
                   : side == 2 ? p.y - rect.min.y
                               : rect.max.y - p.y;
        };
        int left = 0;
        for (int i = 0; i < count; ++i) {
            const ImVec2 &a = points[i], &b = points[(i + 1) % count];
            const float from = room(a), to = room(b);
            if (from >= 0.0f) kept[left++] = a;
            if ((from >= 0.0f) != (to >= 0.0f)) {
                const float t = from / (from - to);
                kept[left++] = {a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t};
            }
        }
        count = left;
        std::copy_n(kept, count, points);
    }
    float twice = 0.0f;
    for (int i = 0; i < count; ++i) {
        const ImVec2 &a = points[i], &b = points[(i + 1) % count];
        twice += a.x * b.y - a.y * b.x;
    }
    return std::abs(twice) / 2.0f;
}

// Reads a frame's draw lists in the order in which they are drawn.
class Reader {
   public:
    explicit Reader(const ImDrawData& data) : data_(data), atlas_(*ImGui::GetIO().Fonts) {
        for (int i = 0; i < atlas_.Builder->BakedPool.Size; ++i) baked_.push_back(&atlas_.Builder->BakedPool[i]);
        for (const ImDrawList* list : data.CmdLists) read(*list);
    }
    const std::vector<Writing>& runs() const { return runs_; }

   private:
    void read(const ImDrawList& list) {
        window_ = nullptr;
        for (const ImGuiWindow* window : ImGui::GetCurrentContext()->Windows) {
            if (window->DrawList == &list) window_ = window;
        }
        for (const ImDrawCmd& command : list.CmdBuffer) {
            if (command.UserCallback != nullptr) continue;
            const ImDrawVert* vertex = list.VtxBuffer.Data + command.VtxOffset;
            const ImDrawIdx* index = list.IdxBuffer.Data + command.IdxOffset;
            const bool letters = command.TexRef._TexData == atlas_.TexData;
            for (unsigned i = 0; i + 2 < command.ElemCount; i += 3) {
                if (letters && i + 5 < command.ElemCount && letter(vertex, index + i, command.ClipRect)) {
                    i += 3;
                } else {
                    shape(vertex, index + i, !letters, command.ClipRect);
                }
            }
        }
        if (!runs_.empty()) runs_.back().open = false;
    }

    struct Found {
        const ImFontBaked* font = nullptr;
        const ImFontGlyph* glyph = nullptr;
    };

    // Whose picture the middle of a quad shows.
    Found find(const ImVec2& uv) const {
        for (const ImFontBaked* font : baked_) {
            for (const ImFontGlyph& glyph : font->Glyphs) {
                if (glyph.Visible && uv.x > glyph.U0 && uv.x < glyph.U1 && uv.y > glyph.V0 && uv.y < glyph.V1) {
                    return {font, &glyph};
                }
            }
        }
        return {};
    }

    // Takes a quad with a letter's picture; false for every other shape.
    bool letter(const ImDrawVert* vertex, const ImDrawIdx* index, const ImVec4& clip) {
        const ImDrawVert &a = vertex[index[0]], &b = vertex[index[1]], &c = vertex[index[2]], &d = vertex[index[5]];
        if (index[3] != index[0] || index[4] != index[2]) return false;
        if (a.uv.x == c.uv.x || a.uv.y == c.uv.y) return false;
        const Found found = find({(a.uv.x + c.uv.x) / 2, (a.uv.y + c.uv.y) / 2});
        if (found.glyph == nullptr) return false;
        const ImFontGlyph& glyph = *found.glyph;
        Letter out;
        out.ink = joined(joined({a.pos, a.pos}, {b.pos, b.pos}), joined({c.pos, c.pos}, {d.pos, d.pos}));
        const bool vertical = a.pos.x == b.pos.x;
        const float width = vertical ? out.ink.max.y - out.ink.min.y : out.ink.max.x - out.ink.min.x;
        const float scale = width / std::max(1e-6f, (glyph.X1 - glyph.X0) * (c.uv.x - a.uv.x) / (glyph.U1 - glyph.U0));
        // What ImGui itself cut off a letter is missing from its picture; the rest is cut by the clip rectangle.
        const float full_x = (glyph.X1 - glyph.X0) * scale, full_y = (glyph.Y1 - glyph.Y0) * scale;
        out.cut_x = full_x * (1.0f - (c.uv.x - a.uv.x) / (glyph.U1 - glyph.U0));
        out.cut_y = full_y * (1.0f - (c.uv.y - a.uv.y) / (glyph.V1 - glyph.V0));
        const float right = std::min(clip.z, data_.DisplaySize.x), bottom = std::min(clip.w, data_.DisplaySize.y);
        out.cut_x += std::max({0.0f, clip.x - out.ink.min.x, out.ink.max.x - right});
        out.cut_y += std::max({0.0f, clip.y - out.ink.min.y, out.ink.max.y - bottom});
        const float start = vertical ? -out.ink.max.y : out.ink.min.x;
        const float left_of_picture = glyph.X0 + (glyph.X1 - glyph.X0) * (a.uv.x - glyph.U0) / (glyph.U1 - glyph.U0);
        const float pen = start - left_of_picture * scale;
        const float line = (vertical ? out.ink.min.x : out.ink.min.y) -
                           (glyph.Y0 + (glyph.Y1 - glyph.Y0) * (a.uv.y - glyph.V0) / (glyph.V1 - glyph.V0)) * scale;
        out.ink = {{std::max(out.ink.min.x, clip.x), std::max(out.ink.min.y, clip.y)},
                   {std::min(out.ink.max.x, clip.z), std::min(out.ink.max.y, clip.w)}};
        append(found, out, pen, line, scale, vertical, clip);
        return true;
    }

    void append(const Found& found, const Letter& letter, float pen, float line, float scale, bool vertical,
                const ImVec4& clip) {
        Writing* run = runs_.empty() || !runs_.back().open ? nullptr : &runs_.back();
        const float gap = run != nullptr ? pen - run->pen : 0.0f;
        const bool same = run != nullptr && run->vertical == vertical && std::abs(line - run->base) < 1.0f &&
                          gap > -1.5f && gap < 2.5f * run->space;
        if (!same) {
            if (run != nullptr) run->open = false;
            run = &runs_.emplace_back();
            run->window = window_;
            run->drawn.window = window_ == nullptr ? "" : window_->Name;
            run->base = line;
            run->vertical = vertical;
            run->right = std::min(clip.z, data_.DisplaySize.x);
            run->drawn.ink = letter.ink;
        } else {
            for (float left = gap; left > 0.5f * run->space; left -= run->space) run->drawn.text += ' ';
        }
        const ImFontGlyph* space = const_cast<ImFontBaked*>(found.font)->FindGlyphNoFallback(' ');
        run->space = (space == nullptr ? 0.25f * found.font->Size : space->AdvanceX) * scale;
        run->pen = pen + found.glyph->AdvanceX * scale;
        char utf8[5];
        ImTextCharToUtf8(utf8, found.glyph->Codepoint);
        run->drawn.text += utf8;
        run->drawn.shortened = found.glyph->Codepoint == ImGui::GetFont()->EllipsisChar;
        run->drawn.ink = joined(run->drawn.ink, letter.ink);
        run->letters.push_back(letter);
    }

    // Anything else that is drawn: it may cover letters that were drawn before.
    void shape(const ImDrawVert* vertex, const ImDrawIdx* index, bool picture, const ImVec4& clip) {
        if (!runs_.empty()) runs_.back().open = false;
        ImVec2 triangle[3];
        Rect box{{1e9f, 1e9f}, {-1e9f, -1e9f}};
        for (int i = 0; i < 3; ++i) {
            const ImDrawVert& v = vertex[index[i]];
            if (!picture && static_cast<float>(v.col >> IM_COL32_A_SHIFT & 255) < kOpaque) return;
            triangle[i] = v.pos;
            box = joined(box, {v.pos, v.pos});
        }
        const ImGuiWindow* root = window_ == nullptr ? nullptr : window_->RootWindow;
        for (Writing& run : runs_) {
            if (!meet(box, run.drawn.ink, 0.0f)) continue;
            const ImGuiWindow* beneath = run.window == nullptr ? nullptr : run.window->RootWindow;
            for (Letter& letter : run.letters) {
                const Rect seen = {{std::max(letter.ink.min.x, clip.x), std::max(letter.ink.min.y, clip.y)},
                                   {std::min(letter.ink.max.x, clip.z), std::min(letter.ink.max.y, clip.w)}};
                if (letter.hidden || seen.min.x >= seen.max.x || seen.min.y >= seen.max.y) continue;
                const float whole = (letter.ink.max.x - letter.ink.min.x) * (letter.ink.max.y - letter.ink.min.y);
                const float share = area_within(triangle, seen) / std::max(whole, 1e-6f);
                if (share <= 0.0f) continue;
                if (floats(root) && root != beneath) {
                    letter.hidden = true;
                } else {
                    letter.covered += share;
                }
            }
        }
    }

    const ImDrawData& data_;
    const ImFontAtlas& atlas_;
    std::vector<const ImFontBaked*> baked_;
    const ImGuiWindow* window_ = nullptr;
    std::vector<Writing> runs_;
};

std::string quoted(const Writing& run) {
    char place[64];
    std::snprintf(place, sizeof place, "\" at %.0f,%.0f of ", static_cast<double>(run.drawn.ink.min.x),
                  static_cast<double>(run.drawn.ink.min.y));
    return '"' + run.drawn.text + place + run.drawn.window;
}

// Scroll bars bring back what the edge of a window cuts off.
bool scrolls(const ImGuiWindow* window, bool across) {
    for (; window != nullptr; window = window->ParentWindow) {
        if (across ? window->ScrollbarX : window->ScrollbarY) return true;
        if (window == window->RootWindow) break;
    }
    return false;
}

void find_cut(const Writing& run, const std::vector<Rect>& may_scroll, std::vector<std::string>& faults) {
    if (std::ranges::any_of(may_scroll, [&](const Rect& field) { return inside(run.drawn.ink, field); })) return;
    float cut_x = 0.0f, cut_y = 0.0f;
    for (const Letter& letter : run.letters) {
        if (letter.hidden) continue;
        cut_x = std::max(cut_x, letter.cut_x);
        cut_y = std::max(cut_y, letter.cut_y);
    }
    // A further letter would begin beyond the edge, perhaps after a space, and would not even be sent.
    if (!run.vertical && run.right - run.pen < 0.9f * run.space) cut_x = kTouch * 2.0f;
    if (cut_x > kTouch && !scrolls(run.window, true)) faults.push_back("cut off sideways: " + quoted(run));
    if (cut_y > kTouch && !scrolls(run.window, false)) faults.push_back("cut off above or below: " + quoted(run));
}

void find_overlap(const Writing& a, const Writing& b, std::vector<std::string>& faults) {
    if (!meet(a.drawn.ink, b.drawn.ink, kTouch)) return;
    for (const Letter& one : a.letters) {
        for (const Letter& other : b.letters) {
            if (one.hidden || other.hidden || !meet(one.ink, other.ink, kTouch)) continue;
            faults.push_back("stand on each other: " + quoted(a) + " and " + quoted(b));
            return;
        }
    }
}

// Windows whose contents reach beyond their edge, with no scroll bar that leads there.
void find_out_of_reach(std::vector<std::string>& faults) {
    for (const ImGuiWindow* window : ImGui::GetCurrentContext()->Windows) {
        if (!window->WasActive || window->Hidden || window->SkipItems) continue;
        if ((window->Flags & ImGuiWindowFlags_DockNodeHost) != 0) continue;  // holds panels, which are asked themselves
        const bool across = window->ScrollMax.x > kTouch && !window->ScrollbarX;
        // The menu bar is as high as its line, whatever its padding.
        const bool menu =
            (window->Flags & ImGuiWindowFlags_MenuBar) != 0 && (window->Flags & ImGuiWindowFlags_NoTitleBar) != 0;
        const bool down = window->ScrollMax.y > kTouch && !window->ScrollbarY && !menu;
        if (!across && !down) continue;
        char text[96];
        std::snprintf(text, sizeof text, "out of reach: %.0f pixels %s of ",
                      static_cast<double>(across ? window->ScrollMax.x : window->ScrollMax.y),
                      across ? "to the right" : "below");
        faults.push_back(text + std::string(window->Name));
    }
}

}  // namespace

std::vector<DrawnText> drawn_texts() {
    std::vector<DrawnText> out;
    const ImDrawData* data = ImGui::GetDrawData();
    if (data == nullptr) return out;
    const Reader reader(*data);
    for (const Writing& run : reader.runs()) {
        if (run.seen()) out.push_back(run.drawn);
    }
    return out;
}

std::vector<std::string> reading_faults(const std::vector<Rect>& may_scroll) {
    std::vector<std::string> faults;
    const ImDrawData* data = ImGui::GetDrawData();
    if (data == nullptr) return faults;
    const Reader reader(*data);
    const std::vector<Writing>& runs = reader.runs();
    for (std::size_t i = 0; i < runs.size(); ++i) {
        find_cut(runs[i], may_scroll, faults);
        const bool covered =
            std::ranges::any_of(runs[i].letters, [](const Letter& l) { return !l.hidden && l.covered > kCovered; });
        if (covered) faults.push_back("covered by something else: " + quoted(runs[i]));
        for (std::size_t j = i + 1; j < runs.size(); ++j) find_overlap(runs[i], runs[j], faults);
    }
    find_out_of_reach(faults);
    return faults;
}

}  // namespace paro::viewer
