// Selection, figures and edits. Opening, watching and saving are in document_files.cpp.
#include "document/document.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "paro/error.h"

namespace paro::viewer {

std::string_view to_string(ErrorSource source) {
    constexpr std::array<std::string_view, 3> kNames = {"measured while sampling", "measured on the captured rows",
                                                        "estimated from the kernel"};
    return kNames[static_cast<std::size_t>(source)];
}

Document::~Document() {
    head_ticket_.cancel();
    io_.opening.cancel();
    overview_.stop();
}

void Document::tell(Message::Kind kind, const std::string& text, bool offers_save_as) {
    std::erase_if(told_.messages, [&](const Message& message) { return message.text == text; });
    constexpr std::size_t kMost = 8;
    if (told_.messages.size() >= kMost) told_.messages.erase(told_.messages.begin());
    told_.messages.push_back({kind, text, offers_save_as, told_.next++});
}

void Document::dismiss(std::uint64_t id) {
    std::erase_if(told_.messages, [id](const Message& message) { return message.id == id; });
}

std::size_t Document::layer_of(std::size_t index) const {
    return static_cast<std::size_t>(std::upper_bound(first_.begin(), first_.end(), index) - first_.begin()) - 1;
}

std::string Document::name_of(std::size_t index) const {
    const std::size_t layer = layer_of(index);
    return base_->layers[layer].id + " head " + std::to_string(index - first_[layer]);
}

void Document::select(std::size_t index) {
    if (!base_ || index >= head_count() || (index == shown_.head && maps_)) return;
    shown_.head = index;
    recompute_head();
}

void Document::set_group(std::size_t group) {
    if (!base_ || group >= base_->timestep_groups.size() || group == shown_.group) return;
    shown_.group = group;
    recompute_head();
    recompute_overview();
}

void Document::set_tile(std::int32_t tile) {
    if (tile == shown_.tile || (tile != 64 && tile != 128)) return;
    shown_.tile = tile;
    if (!base_) return;
    recompute_head();
    recompute_overview();
}

void Document::set_text(std::int64_t prefix, std::int64_t suffix) {
    constexpr std::int64_t kMost = 1 << 16;
    shown_.prefix = std::clamp<std::int64_t>(prefix, 0, kMost);
    shown_.suffix = std::clamp<std::int64_t>(suffix, 0, kMost);
}

void Document::recompute_head() {
    head_ticket_.cancel();
    head_ticket_ = Ticket();
    maps_ = std::make_shared<HeadMaps>();
    maps_->key = {layer_of(shown_.head), head_of(shown_.head), shown_.group, grid(), shown_.tile};
    compute_head(workers_, head_ticket_, base_, loaded_.capture, maps_, heads()[shown_.head].order);
}

void Document::recompute_overview() {
    overview_.start(workers_, base_, loaded_.capture, heads(), shown_.group, grid(), shown_.tile);
}

bool Document::rows_captured(std::size_t index) const {
    const std::size_t layer = layer_of(index);
    return has_rows(capture(), *base_, layer, index - first_[layer], shown_.group, grid());
}

std::size_t Document::captured_count() const {
    std::set<std::string> heads;
    if (capture() == nullptr) return 0;
    for (const auto& [name, tensor] : capture()->tensors) {
        if (name.starts_with("rows/")) heads.insert(name.substr(0, name.rfind('/')));
    }
    return heads.size();
}

double Document::density(std::size_t index) const { return heads()[index].density.value_or(default_density()); }

double Document::retained(std::size_t index) const { return overview_.heads()[index].retained_at(density(index)); }

std::vector<std::size_t> Document::in_scope(Scope scope) const {
    if (scope == Scope::head) return {shown_.head};
    std::vector<std::size_t> found;
    const std::size_t layer = layer_of(shown_.head);
    const std::size_t begin = scope == Scope::all ? 0 : first_[layer];
    const std::size_t end = scope == Scope::all ? head_count() : begin + base_->layers[layer].heads.size();
    for (std::size_t i = begin; i < end; ++i) found.push_back(i);
    return found;
}

Figures Document::figures(Scope scope) const { return figures_at(scope, -1.0); }

Figures Document::figures_at(Scope scope, double density_for_all) const {
    Figures out;
    double lost = 0.0;
    std::size_t with_rows = 0;
    for (const std::size_t i : in_scope(scope)) {
        const HeadSummary& head = overview_.heads()[i];
        const double asked = density_for_all > 0.0 ? density_for_all : density(i);
        ++out.heads;
        out.exact += head.exact ? 1 : 0;
        out.blocks += head.blocks;
        out.count += head.count_at(asked);
        out.retained += head.retained_at(asked);
        const double own = head.lost_on_rows(asked);
        if (own < 0.0) continue;
        lost += own;
        ++with_rows;
    }
    if (out.heads == 0) return out;
    const auto n = static_cast<double>(out.heads);
    out.density = out.blocks > 0.0 ? out.count / out.blocks : 1.0;
    out.count /= n;
    out.blocks /= n;
    out.retained /= n;
    if (with_rows > 0) out.lost_on_rows = lost / static_cast<double>(with_rows);
    const BlockLayout blocks = block_layout(layout(), shown_.tile);
    const double all = static_cast<double>(blocks.blocks()) * static_cast<double>(blocks.blocks());
    out.density_total = (all - out.blocks * (1.0 - out.density)) / all;
    out.work = TimeModel::work(out.density_total, base_->defaults.tail, shown_.tile);
    if (!ran_.time.known || ran_.time.sparse_calls == 0) return out;
    // The run's time is of all heads, so the scope's figures stand for their share of them.
    const double share = n / static_cast<double>(head_count());
    const double rest = scope == Scope::all ? 0.0 : figures(Scope::all).density_total;
    const double total = out.density_total * share + rest * (1.0 - share);
    out.seconds = ran_.time.seconds(total, base_->defaults.tail, shown_.tile);
    return out;
}

HeadError Document::error(std::size_t index) const {
    const std::size_t layer = layer_of(index);
    if (const Run* chosen = run()) {
        double sum = 0.0;
        int count = 0;
        const int head = static_cast<int>(index - first_[layer]);
        for (const RunLine& line : chosen->lines) {
            if (line.head_retained.empty() || line.layer != base_->layers[layer].id) continue;
            const auto mine = std::ranges::find(line.heads, head);
            if (mine == line.heads.end()) continue;
            sum += 1.0 - line.head_retained[static_cast<std::size_t>(mine - line.heads.begin())];
            ++count;
        }
        if (count > 0) return {sum / count, ErrorSource::meter};
    }
    const HeadSummary& head = overview_.heads()[index];
    if (const double lost = head.lost_on_rows(density(index)); lost >= 0.0) return {lost, ErrorSource::rows};
    return {1.0 - head.retained_at(density(index)), ErrorSource::estimate};
}

const Run* Document::run() const {
    const RunLog* log = run_log();
    if (log == nullptr || ran_.run < 0 || ran_.run >= static_cast<int>(log->runs.size())) return nullptr;
    return &log->runs[static_cast<std::size_t>(ran_.run)];
}

bool Document::kept_dense(std::size_t index) const {
    if (density(index) >= 1.0) return true;
    const Run* chosen = run();
    if (chosen == nullptr) return false;
    const std::size_t layer = layer_of(index);
    const int head = static_cast<int>(index - first_[layer]);
    return std::ranges::none_of(chosen->lines, [&](const RunLine& line) {
        const bool mine = line.heads.empty() || std::ranges::find(line.heads, head) != line.heads.end();
        return line.path == Path::sparse && mine && line.layer == base_->layers[layer].id;
    });
}

std::string Document::subject(Scope scope) const {
    if (scope == Scope::all) return "all heads";
    return scope == Scope::head ? name_of(shown_.head) : "layer " + base_->layers[layer_of(shown_.head)].id;
}

void Document::apply(const std::string& label, EditState next, std::uint64_t merge) {
    history_.apply(label, std::move(next), merge);
    after_edit();
}

void Document::after_edit() { overview_.update(workers_, heads()); }

void Document::set_density(Scope scope, double density, std::uint64_t merge, bool pin) {
    if (!base_) return;
    require(density > 0.0 && density <= 1.0, "density", "must be above 0 and at most 1", density);
    EditState next = history_.now();
    if (scope == Scope::all && !pin) {
        next.density = density;
    } else {
        for (const std::size_t i : in_scope(scope)) next.heads[i].density = density;
    }
    apply("density of " + subject(scope), std::move(next), merge);
}

void Document::clear_density(Scope scope) {
    if (!base_) return;
    EditState next = history_.now();
    for (const std::size_t i : in_scope(scope)) next.heads[i].density.reset();
    apply("own density removed from " + subject(scope), std::move(next));
}

void Document::set_order(AxisOrder order) {
    if (!base_) return;
    EditState next = history_.now();
    next.heads[shown_.head].order = order;
    next.heads[shown_.head].locked = true;
    apply("order of " + subject(Scope::head), std::move(next));
}

void Document::set_locked(Scope scope, bool locked) {
    if (!base_) return;
    EditState next = history_.now();
    for (const std::size_t i : in_scope(scope)) next.heads[i].locked = locked;
    apply((locked ? "lock of " : "unlocking ") + subject(scope), std::move(next));
}

void Document::reset(Scope scope) {
    if (!base_) return;
    EditState next = history_.now();
    for (const std::size_t i : in_scope(scope)) next.heads[i] = saved_.heads[i];
    if (scope == Scope::all) next.density = saved_.density;
    apply("reset of " + subject(scope), std::move(next));
}

std::size_t Document::edited_count() const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < head_count(); ++i) count += edited(i) ? 1 : 0;
    return count;
}

bool Document::undo() {
    const bool done = history_.undo();
    if (done) after_edit();
    return done;
}

bool Document::redo() {
    const bool done = history_.redo();
    if (done) after_edit();
    return done;
}

}  // namespace paro::viewer
