#include "document/edits.h"

#include <map>

#include "paro/error.h"

namespace paro::viewer {

EditState edit_state_of(const Profile& profile) {
    EditState state;
    state.density = profile.defaults.density;
    for (const ProfileLayer& layer : profile.layers) {
        for (const ProfileHead& head : layer.heads) state.heads.push_back({head.order, head.density, head.locked});
    }
    return state;
}

Profile with_edits(const Profile& base, const EditState& state) {
    Profile out = base;
    out.defaults.density = state.density;
    std::size_t index = 0;
    for (ProfileLayer& layer : out.layers) {
        for (ProfileHead& head : layer.heads) {
            require(index < state.heads.size(), "edits", "must cover every head", state.heads.size());
            const HeadState& edited = state.heads[index++];
            head.order = edited.order;
            head.density = edited.density;
            head.locked = edited.locked;
        }
    }
    return out;
}

void History::reset(EditState state) {
    state_ = std::move(state);
    done_.clear();
    undone_.clear();
}

History::Step History::difference(const EditState& before, const EditState& after) {
    Step step;
    step.density_before = before.density;
    step.density_after = after.density;
    for (std::size_t i = 0; i < before.heads.size(); ++i) {
        if (!(before.heads[i] == after.heads[i])) step.heads.push_back({i, before.heads[i], after.heads[i]});
    }
    return step;
}

void History::apply(const std::string& label, EditState next, std::uint64_t merge) {
    require(next.heads.size() == state_.heads.size(), "edit", "must keep the number of heads", next.heads.size());
    if (next == state_) return;
    Step step = difference(state_, next);
    step.label = label;
    step.merge = merge;
    state_ = std::move(next);
    undone_.clear();
    if (merge == 0 || done_.empty() || done_.back().merge != merge) {
        done_.push_back(std::move(step));
        return;
    }
    Step& whole = done_.back();
    whole.density_after = step.density_after;
    std::map<std::size_t, std::size_t> known;
    for (std::size_t i = 0; i < whole.heads.size(); ++i) known[whole.heads[i].index] = i;
    for (const Change& change : step.heads) {
        const auto found = known.find(change.index);
        if (found == known.end()) {
            whole.heads.push_back(change);
        } else {
            whole.heads[found->second].after = change.after;
        }
    }
}

void History::play(const Step& step, bool forward) {
    state_.density = forward ? step.density_after : step.density_before;
    for (const Change& change : step.heads) state_.heads[change.index] = forward ? change.after : change.before;
}

bool History::undo() {
    if (done_.empty()) return false;
    play(done_.back(), false);
    undone_.push_back(std::move(done_.back()));
    undone_.back().merge = 0;  // a later drag must not grow it
    done_.pop_back();
    return true;
}

bool History::redo() {
    if (undone_.empty()) return false;
    play(undone_.back(), true);
    done_.push_back(std::move(undone_.back()));
    undone_.pop_back();
    return true;
}

std::string History::undo_label() const { return done_.empty() ? "" : done_.back().label; }
std::string History::redo_label() const { return undone_.empty() ? "" : undone_.back().label; }

}  // namespace paro::viewer
