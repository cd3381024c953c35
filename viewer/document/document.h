// What is open: a profile with its capture and run log, the user's edits and selection, and what is computed from them.
// Knows no window: panels read it and call it, tests do the same.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "document/compute/head_maps.h"
#include "document/compute/overview.h"
#include "document/compute/workers.h"
#include "document/edits.h"
#include "document/files/files.h"
#include "paro/profile_diff.h"
#include "paro/token_layout.h"

namespace paro::viewer {

enum class Scope : std::uint8_t { head, layer, all };

struct Message {
    enum class Kind : std::uint8_t { info, warning, error } kind = Kind::info;
    std::string text;
    bool offers_save_as = false;
    std::uint64_t id = 0;
};

// What the density slider reports, mean over the heads of its scope.
struct Figures {
    double density = 0.0;              // computed grid blocks / all grid blocks
    double density_total = 0.0;        // with text blocks, which are always computed
    double blocks = 0.0, count = 0.0;  // of a head
    double retained = 0.0;
    double lost_on_rows = -1.0;        // mean over the heads with exact rows; -1 without any
    double work = 1.0;                 // of a sparse call against a dense one
    std::optional<double> seconds;     // of the run's attention, predicted
    std::size_t heads = 0, exact = 0;  // exact: figures from the heads' own maps instead of the stored ones
};

enum class ErrorSource : std::uint8_t { meter, rows, estimate };
struct HeadError {
    double lost = 0.0;  // share of attention mass that the mask drops
    ErrorSource source = ErrorSource::estimate;
};

struct Loading {
    bool active = false;
    std::filesystem::path path;
    double share = 0.0;
    std::string what;
};

class Document {
   public:
    explicit Document(Workers& workers, FileStore& store = disk()) : workers_(workers), store_(store) {}
    ~Document();

    // -- opening. A failed open leaves what is shown as it is and adds a message.
    void open(const std::filesystem::path& path);
    void open_run_log(const std::filesystem::path& path);
    void open_comparison(const std::filesystem::path& path);
    void close_comparison() { comparison_.reset(); }
    // Takes what was loaded at once.
    void adopt(Loaded loaded);
    // Once a frame: takes in what the workers found, and looks at the files every half second. now: seconds. idle:
    // false while the user is at work, where there are no threads for what can wait.
    void update(double now, bool idle = true);
    bool has_profile() const { return base_ != nullptr; }
    // The next update looks at the files, however long ago it did last.
    void look_now() { watched_.looked = -1.0; }
    // Nothing is loading, saving or being computed.
    bool settled() const { return workers_.pending() == 0 && !io_.saving; }
    // What the panels of the selected head need is there.
    bool head_ready() const { return maps_ && maps_->complete(); }
    Loading loading() const;
    const std::filesystem::path& path() const { return loaded_.profile_path; }
    const Loaded& files() const { return loaded_; }
    const FileStore& store() const { return store_; }

    const std::vector<Message>& messages() const { return told_.messages; }
    void tell(Message::Kind kind, const std::string& text, bool offers_save_as = false);
    void dismiss(std::uint64_t id);

    // -- what is shown
    const Profile& base() const { return *base_; }
    const Capture* capture() const { return loaded_.capture.get(); }
    std::size_t layers() const { return base_ ? base_->layers.size() : 0; }
    std::size_t head_count() const { return history_.now().heads.size(); }
    std::size_t index(std::size_t layer, std::size_t head) const { return first_[layer] + head; }
    std::size_t layer_of(std::size_t index) const;
    std::size_t head_of(std::size_t index) const { return index - first_[layer_of(index)]; }
    std::string name_of(std::size_t index) const;  // "double.3.0 head 1"
    const std::vector<HeadState>& heads() const { return history_.now().heads; }

    std::size_t selected() const { return shown_.head; }
    void select(std::size_t index);
    std::size_t group() const { return shown_.group; }
    void set_group(std::size_t group);
    const Grid& grid() const { return base_->calibration.grids.front(); }
    std::int32_t tile() const { return shown_.tile; }
    void set_tile(std::int32_t tile);
    // Text or reference tokens before and after the grid; always computed.
    std::int64_t prefix() const { return shown_.prefix; }
    std::int64_t suffix() const { return shown_.suffix; }
    void set_text(std::int64_t prefix, std::int64_t suffix);
    TokenLayout layout() const { return {shown_.prefix, grid(), shown_.suffix}; }

    const HeadMaps& maps() const { return *maps_; }
    bool has_maps() const { return maps_ != nullptr; }
    const Overview& overview() const { return overview_; }
    bool rows_captured(std::size_t index) const;
    std::size_t captured_count() const;

    // -- density and what follows from it
    double density(std::size_t index) const;  // the head's own, else the default
    double default_density() const { return history_.now().density; }
    Figures figures(Scope scope) const;
    Figures figures_at(Scope scope, double density) const;  // as if every head of the scope had it
    double retained(std::size_t index) const;
    HeadError error(std::size_t index) const;
    std::vector<std::size_t> in_scope(Scope scope) const;

    // -- edits. Each is one step of undo; those with the same merge number (not 0) are one.
    // all: the default density, and heads with one of their own keep it; pin writes it into every head.
    void set_density(Scope scope, double density, std::uint64_t merge = 0, bool pin = false);
    void clear_density(Scope scope);
    // Of the selected head, which is locked by it.
    void set_order(AxisOrder order);
    void set_locked(Scope scope, bool locked);
    // Back to what the file holds.
    void reset(Scope scope);
    bool edited(std::size_t index) const { return !(heads()[index] == saved_.heads[index]); }
    std::size_t edited_count() const;
    bool modified() const { return base_ && !(history_.now() == saved_); }
    bool undo();
    bool redo();
    const History& history() const { return history_; }

    // -- saving, in the background; a failure is a message that offers "save as".
    void save() { save_as(loaded_.profile_path); }
    void save_as(const std::filesystem::path& path);
    bool saving() const { return io_.saving; }
    // The profile with its edits, as a file.
    std::string text() const;

    // -- the run log
    const RunLog* run_log() const { return loaded_.run_log ? &*loaded_.run_log : nullptr; }
    int run_index() const { return ran_.run; }
    void set_run(int index) { ran_.run = index; }
    const Run* run() const;
    const TimeModel& time_model() const { return ran_.time; }
    // No call of the head's layer ran sparse in the chosen run, or its density is 1.
    bool kept_dense(std::size_t index) const;

    // What is shown, edits included, against another profile, as `profile diff` has it.
    struct Compared {
        std::filesystem::path path;
        ProfileDiff diff;
        bool same_model = true;
    };
    const Compared* comparison() const { return comparison_ ? &*comparison_ : nullptr; }

   private:
    struct Progress;
    struct Seen {
        Stamp used, noticed;
        bool missing_told = false;
    };
    // What of the profile is shown, and for which tokens.
    struct Shown {
        std::size_t head = 0, group = 0;
        std::int32_t tile = 64;
        std::int64_t prefix = 0, suffix = 0;
    };
    struct Told {
        std::vector<Message> messages;
        std::uint64_t next = 1;
    };
    struct Io {
        Ticket opening;
        std::shared_ptr<Progress> progress;  // of what is being read
        bool saving = false;
    };
    // The run of the log that is shown, and what time its attention took.
    struct Ran {
        int run = -1;
        TimeModel time;
    };
    struct Watched {
        Seen profile, capture, log;
        double looked = 0.0;  // seconds
    };

    void begin(const std::filesystem::path& path, bool reload);
    void read(const std::filesystem::path& path, bool reload);
    void reload(Loaded loaded);
    // Reads the capture beside what was adopted, in the background.
    void read_capture(const std::filesystem::path& path);
    void end_save(const std::shared_ptr<const Profile>& profile, const EditState& state,
                  const std::filesystem::path& path, const Saved& saved);
    void attach(const Loaded& read);
    void recompute_head();
    void recompute_overview();
    void apply(const std::string& label, EditState next, std::uint64_t merge = 0);
    void after_edit();
    void take_run_log(RunLog log);
    void watch(double now);
    // Whether the file was written again and is at rest.
    bool changed(Seen& seen, const std::filesystem::path& path);
    std::string subject(Scope scope) const;

    Workers& workers_;
    FileStore& store_;
    Loaded loaded_;
    std::shared_ptr<const Profile> base_;
    EditState saved_;
    History history_;
    std::vector<std::size_t> first_;  // first head of each layer
    Shown shown_;
    std::shared_ptr<HeadMaps> maps_;
    Ticket head_ticket_;
    Overview overview_;
    Told told_;
    Io io_;
    Ran ran_;
    std::optional<Compared> comparison_;
    Watched watched_;
};

std::string_view to_string(ErrorSource source);

}  // namespace paro::viewer
