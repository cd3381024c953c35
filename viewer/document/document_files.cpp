// The document's files: opening in the background, watching, saving.
#include <algorithm>

#include "document/document.h"
#include "paro/error.h"
#include "paro/profile_plan.h"

namespace paro::viewer {

namespace fs = std::filesystem;

// Written by the worker that loads, read by the window.
struct Document::Progress {
    mutable std::mutex mutex;
    Loading state;
};

namespace {

// Kernels stay as they are; a changed order changes the mass that is stated for it.
Profile profile_to_save(const Profile& base, const EditState& state) {
    Profile out = with_edits(base, state);
    const Grid& grid = out.calibration.grids.front();
    for (std::size_t l = 0; l < out.layers.size(); ++l) {
        for (std::size_t h = 0; h < out.layers[l].heads.size(); ++h) {
            ProfileHead& head = out.layers[l].heads[h];
            if (head.order == base.layers[l].heads[h].order) continue;
            for (HeadGroup& group : head.groups) {
                const OffsetKernel kernel = dequantise(out.bins, group.kernel);
                const BlockRanking ranking = rank_blocks(importance(kernel, grid, head.order, kMassTile, kMassTile));
                for (std::size_t i = 0; i < kMassDensities.size(); ++i) {
                    group.mass[i] = std::clamp(ranking.retained(kMassDensities[i]), 0.0, 1.0);
                }
            }
        }
    }
    return out;
}

}  // namespace

Loading Document::loading() const {
    if (!progress_) return {};
    const std::lock_guard<std::mutex> lock(progress_->mutex);
    return progress_->state;
}

void Document::open(const fs::path& path) { begin(path, false); }

void Document::begin(const fs::path& path, bool again) {
    open_ticket_.cancel();
    open_ticket_ = Ticket();
    auto progress = std::make_shared<Progress>();
    progress->state = {true, path, 0.0, "Opening"};
    progress_ = progress;
    workers_.post(Priority::urgent, open_ticket_, [=, this]() -> Workers::Delivery {
        const auto report = [&](double share, const std::string& what) {
            const std::lock_guard<std::mutex> lock(progress->mutex);
            progress->state.share = share;
            progress->state.what = what;
        };
        try {
            auto loaded = std::make_shared<Loaded>(open_first(path, report));
            return [=, this] {
                progress_.reset();
                again ? reload(std::move(*loaded)) : adopt(std::move(*loaded));
                read_capture();
            };
        } catch (const std::exception& error) {
            return [=, this, text = std::string(error.what())] {
                progress_.reset();
                tell(again ? Message::Kind::warning : Message::Kind::error,
                     again ? text + ". What was read before stays; it is read again once it changes." : text);
            };
        }
    });
}

void Document::adopt(Loaded loaded) {
    head_ticket_.cancel();
    loaded_ = std::move(loaded);
    base_ = loaded_.profile;
    saved_ = edit_state_of(*base_);
    history_.reset(saved_);
    first_.clear();
    std::size_t next = 0;
    for (const ProfileLayer& layer : base_->layers) {
        first_.push_back(next);
        next += layer.heads.size();
    }
    selected_ = group_ = grid_ = 0;
    comparison_.reset();
    seen_profile_ = {loaded_.profile_stamp, loaded_.profile_stamp, false};
    seen_capture_ = {loaded_.capture_stamp, loaded_.capture_stamp, false};
    seen_log_ = {loaded_.run_log_stamp, loaded_.run_log_stamp, false};
    run_ = -1;
    time_model_ = {};
    if (loaded_.run_log) take_run_log(std::move(*loaded_.run_log));
    for (const std::string& note : loaded_.notes) tell(Message::Kind::warning, note);
    recompute_head();
    recompute_overview();
}

void Document::read_capture() {
    if (loaded_.capture || loaded_.capture_path.empty()) return;
    auto progress = std::make_shared<Progress>();
    progress->state = {true, loaded_.capture_path, 0.0, "Reading " + loaded_.capture_path.filename().string()};
    progress_ = progress;
    // A copy: the document may go on to another file while this one is read.
    auto read = std::make_shared<Loaded>();
    read->profile = loaded_.profile;
    read->profile_path = loaded_.profile_path;
    read->capture_path = loaded_.capture_path;
    workers_.post(Priority::urgent, open_ticket_, [=, this]() -> Workers::Delivery {
        open_capture(*read, [&](double share, const std::string& what) {
            const std::lock_guard<std::mutex> lock(progress->mutex);
            progress->state.share = share;
            progress->state.what = what;
        });
        return [=, this] {
            progress_.reset();
            attach(*read);
        };
    });
}

void Document::attach(const Loaded& read) {
    for (const std::string& note : read.notes) tell(Message::Kind::warning, note);
    loaded_.capture = read.capture;
    loaded_.capture_path = read.capture_path;
    loaded_.capture_stamp = read.capture_stamp;
    seen_capture_ = {read.capture_stamp, read.capture_stamp, false};
    if (!loaded_.capture) return;
    if (rows_captured(selected_)) recompute_head();
    std::vector<std::size_t> with_rows;
    for (std::size_t i = 0; i < head_count(); ++i) {
        if (rows_captured(i)) with_rows.push_back(i);
    }
    overview_.attach(workers_, loaded_.capture, with_rows);
}

void Document::take_run_log(RunLog log) {
    loaded_.run_log = std::move(log);
    run_ = loaded_.run_log->newest(base_->model.fingerprint);
    time_model_ = {};
    // A run that was compared or predicted with must have sparse calls: the newest of those.
    const auto& runs = loaded_.run_log->runs;
    for (auto found = runs.rbegin(); found != runs.rend(); ++found) {
        if (found->sparse_calls() == 0 || found->fingerprint != base_->model.fingerprint) continue;
        time_model_ = fit_time(*loaded_.run_log, *found);
        run_ = static_cast<int>(runs.rend() - found) - 1;
        break;
    }
    if (loaded_.run_log->skipped > 0 && loaded_.run_log->runs.empty()) {
        tell(Message::Kind::warning, loaded_.run_log_path.string() + ": " + loaded_.run_log->first_problem);
    }
}

void Document::reload(Loaded loaded) {
    const EditState mine = history_.now(), before = saved_;
    const bool had_edits = modified();
    const std::shared_ptr<const Profile> old = base_;
    const std::size_t selected = selected_, group = group_;
    adopt(std::move(loaded));
    const bool same_shape = old->layers.size() == base_->layers.size() && mine.heads.size() == head_count();
    if (same_shape) {
        selected_ = selected;
        group_ = std::min(group, base_->timestep_groups.size() - 1);
        recompute_head();
        recompute_overview();
    }
    std::string text = loaded_.profile_path.filename().string() + " changed on disk and was read again";
    if (had_edits && same_shape) {
        EditState next = history_.now();
        for (std::size_t i = 0; i < mine.heads.size(); ++i) {
            if (!(mine.heads[i] == before.heads[i])) next.heads[i] = mine.heads[i];
        }
        if (mine.density != before.density) next.density = mine.density;
        apply("edits kept over a reload", std::move(next));
        text += "; your edits were kept";
    } else if (had_edits) {
        text += "; it holds other heads now, so your edits were dropped";
    }
    tell(Message::Kind::info, text + '.');
}

void Document::open_run_log(const fs::path& path) {
    if (!base_) {
        tell(Message::Kind::error, path.string() + " is a run log: open a profile first.");
        return;
    }
    workers_.post(Priority::urgent, Ticket(), [=, this]() -> Workers::Delivery {
        try {
            auto log = std::make_shared<RunLog>(load_run_log(path));
            return [=, this] {
                loaded_.run_log_path = path;
                loaded_.run_log_stamp = stamp_of(path);
                seen_log_ = {loaded_.run_log_stamp, loaded_.run_log_stamp, false};
                take_run_log(std::move(*log));
            };
        } catch (const std::exception& error) {
            return [this, text = std::string(error.what())] { tell(Message::Kind::error, text); };
        }
    });
}

void Document::open_comparison(const fs::path& path) {
    if (!base_) return;
    workers_.post(
        Priority::urgent, open_ticket_, [=, this, mine = base_, state = history_.now()]() -> Workers::Delivery {
            try {
                const fs::path file = kind_of(path) == FileKind::capture ? profile_of_capture(path) : path;
                auto result = std::make_shared<Comparison>(compare(with_edits(*mine, state), load_profile(file)));
                return [=, this] { comparison_ = {file, std::move(*result)}; };
            } catch (const std::exception& error) {
                return [this, text = std::string(error.what())] { tell(Message::Kind::error, text); };
            }
        });
}

void Document::save_as(const fs::path& path) {
    if (!base_ || saving_) return;
    if (kind_of(path) != FileKind::profile) {
        tell(Message::Kind::error, path.string() + " must be named *.json: captures and run logs are not edited.",
             true);
        return;
    }
    // The file that is open may keep whatever name it has.
    const std::string name = path.stem().string();
    if (const std::string_view rule = profile_name_rule(name); !rule.empty() && path != loaded_.profile_path) {
        tell(Message::Kind::error,
             "The name " + std::string(rule) + ", or ComfyUI would not offer it: " + suggest_profile_name(name) +
                 ".json would do.",
             true);
        return;
    }
    saving_ = true;
    workers_.post(Priority::urgent, Ticket(), [=, this, base = base_, state = history_.now()]() -> Workers::Delivery {
        try {
            auto profile = std::make_shared<const Profile>(profile_to_save(*base, state));
            save_profile(*profile, path);
            const Stamp stamp = stamp_of(path);
            return [=, this] {
                saving_ = false;
                // Another file may have been opened meanwhile; then this one is simply saved.
                if (base_ != base) return;
                base_ = loaded_.profile = profile;
                saved_ = state;
                loaded_.profile_path = path;
                loaded_.profile_stamp = stamp;
                seen_profile_ = {stamp, stamp, false};
                tell(Message::Kind::info, "Saved " + path.string() + '.');
            };
        } catch (const std::exception& error) {
            return [=, this, text = std::string(error.what())] {
                saving_ = false;
                tell(Message::Kind::error, "Not saved: " + text, true);
            };
        }
    });
}

bool Document::changed(Seen& seen, const fs::path& path) {
    if (path.empty()) return false;
    const Stamp stamp = stamp_of(path);
    const bool at_rest = stamp == seen.noticed;
    seen.noticed = stamp;
    if (!stamp.exists) {
        // A file that never was is not missed.
        if (at_rest && seen.used.exists && !seen.missing_told) {
            seen.missing_told = true;
            tell(Message::Kind::warning, path.string() + " is gone. What was read stays; saving writes it again.");
        }
        return false;
    }
    if (!at_rest || stamp == seen.used) return false;
    seen.used = stamp;
    seen.missing_told = false;
    return true;
}

void Document::watch(double now) {
    constexpr double kInterval = 0.5;
    if (!base_ || now - looked_ < kInterval || saving_ || progress_) return;
    looked_ = now;
    const bool profile = changed(seen_profile_, loaded_.profile_path);
    const fs::path capture =
        loaded_.capture_path.empty() ? capture_of_profile(loaded_.profile_path) : loaded_.capture_path;
    const bool captured = changed(seen_capture_, capture);
    if (profile || captured) {
        begin(loaded_.profile_stamp.exists || profile ? loaded_.profile_path : loaded_.asked, true);
        return;
    }
    fs::path log = loaded_.run_log_path;
    for (const fs::path& place : run_log_places(loaded_.profile_path)) {
        if (log.empty() && stamp_of(place).exists) log = place;
    }
    if (changed(seen_log_, log)) open_run_log(log);
}

void Document::update(double now) {
    workers_.deliver();
    watch(now);
}

}  // namespace paro::viewer
