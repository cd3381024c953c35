// The user's edits: head by head what may be changed, with undo and redo.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "document/compute/overview.h"

namespace paro::viewer {

// Everything that an edit can touch.
struct EditState {
    std::vector<HeadState> heads;  // layer by layer
    double density = 0.3;          // the profile's default: heads without a density of their own
    friend bool operator==(const EditState&, const EditState&) = default;
};

EditState edit_state_of(const Profile& profile);
// The profile with the edits in it; mass is left as it was.
Profile with_edits(const Profile& base, const EditState& state);

class History {
   public:
    // Makes `state` the current one and forgets all steps.
    void reset(EditState state);
    const EditState& now() const { return state_; }

    // Applies `next` as one step. Steps that follow each other with the same merge number (not 0) are one step: the
    // positions of a slider while it is dragged. A step that changes nothing is none.
    void apply(const std::string& label, EditState next, std::uint64_t merge = 0);
    bool undo();
    bool redo();
    // What would be undone or redone; empty without.
    std::string undo_label() const;
    std::string redo_label() const;
    std::size_t steps() const { return done_.size(); }

   private:
    struct Change {
        std::size_t index = 0;
        HeadState before, after;
    };
    struct Step {
        std::string label;
        std::vector<Change> heads;
        double density_before = 0.3, density_after = 0.3;
        std::uint64_t merge = 0;
    };
    static Step difference(const EditState& before, const EditState& after);
    void play(const Step& step, bool forward);

    EditState state_;
    std::vector<Step> done_, undone_;
};

}  // namespace paro::viewer
