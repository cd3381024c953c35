// The document's files: opening in the background, watching, saving.
#include <algorithm>

#include "document/document.h"
#include "document/files/utf8.h"
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
    if (!io_.progress) return {};
    const std::lock_guard<std::mutex> lock(io_.progress->mutex);
    return io_.progress->state;
}

void Document::open(const fs::path& path) { begin(path, false); }

void Document::begin(const fs::path& path, bool again) {
    io_.opening.cancel();
    io_.opening = Ticket();
    io_.progress = std::make_shared<Progress>();
    io_.progress->state = {true, path, 0.0, store_.remote() ? "Fetching " + utf8(path.filename()) : "Opening"};
    store_.bring(path, [=, this, ticket = io_.opening](const std::string& problem) {
        if (ticket.cancelled()) return;
        if (problem.empty()) {
            read(path, again);
            return;
        }
        io_.progress.reset();
        if (again) watched_.profile.used = {};  // to be tried again
        tell(again ? Message::Kind::warning : Message::Kind::error, problem);
    });
}

void Document::read(const fs::path& path, bool again) {
    const auto progress = io_.progress;
    workers_.post(Priority::urgent, io_.opening, [=, this]() -> Workers::Delivery {
        const auto report = [&](double share, const std::string& what) {
            const std::lock_guard<std::mutex> lock(progress->mutex);
            progress->state.share = share;
            progress->state.what = what;
        };
        try {
            auto loaded = std::make_shared<Loaded>(open_first(path, report, store_));
            return [=, this] {
                io_.progress.reset();
                again ? reload(std::move(*loaded)) : adopt(std::move(*loaded));
                if (!loaded_.capture && !loaded_.capture_path.empty()) read_capture(loaded_.capture_path);
            };
        } catch (const std::exception& error) {
            return [=, this, text = std::string(error.what())] {
                io_.progress.reset();
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
    shown_.head = shown_.group = 0;
    comparison_.reset();
    watched_.profile = {loaded_.profile_stamp, loaded_.profile_stamp, false};
    watched_.capture = {loaded_.capture_stamp, loaded_.capture_stamp, false};
    watched_.log = {loaded_.run_log_stamp, loaded_.run_log_stamp, false};
    ran_.run = -1;
    ran_.time = {};
    if (loaded_.run_log) take_run_log(std::move(*loaded_.run_log));
    for (const std::string& note : loaded_.notes) tell(Message::Kind::warning, note);
    recompute_head();
    recompute_overview();
}

void Document::read_capture(const fs::path& path) {
    auto progress = std::make_shared<Progress>();
    progress->state = {true, path, 0.0, "Reading " + utf8(path.filename())};
    io_.progress = progress;
    // A copy: the document may go on to another file while this one is read.
    auto read = std::make_shared<Loaded>();
    read->profile = loaded_.profile;
    read->profile_path = loaded_.profile_path;
    read->capture_path = path;
    store_.bring(path, [=, this, ticket = io_.opening](const std::string& problem) {
        if (ticket.cancelled()) return;
        if (!problem.empty()) {
            io_.progress.reset();
            tell(Message::Kind::warning, problem);
            return;
        }
        workers_.post(Priority::urgent, ticket, [=, this]() -> Workers::Delivery {
            open_capture(
                *read,
                [&](double share, const std::string& what) {
                    const std::lock_guard<std::mutex> lock(progress->mutex);
                    progress->state.share = share;
                    progress->state.what = what;
                },
                store_);
            return [=, this] {
                io_.progress.reset();
                attach(*read);
            };
        });
    });
}

void Document::attach(const Loaded& read) {
    for (const std::string& note : read.notes) tell(Message::Kind::warning, note);
    loaded_.capture = read.capture;
    loaded_.capture_path = read.capture_path;
    loaded_.capture_stamp = read.capture_stamp;
    watched_.capture = {read.capture_stamp, read.capture_stamp, false};
    if (!loaded_.capture) return;
    if (rows_captured(shown_.head)) recompute_head();
    std::vector<std::size_t> with_rows;
    for (std::size_t i = 0; i < head_count(); ++i) {
        if (rows_captured(i)) with_rows.push_back(i);
    }
    overview_.attach(workers_, loaded_.capture, with_rows);
}

void Document::take_run_log(RunLog log) {
    loaded_.run_log = std::move(log);
    ran_.run = loaded_.run_log->newest(base_->model.fingerprint);
    ran_.time = {};
    // A run that was compared or predicted with must have sparse calls: the newest of those.
    const auto& runs = loaded_.run_log->runs;
    for (auto found = runs.rbegin(); found != runs.rend(); ++found) {
        if (found->sparse_calls() == 0 || found->fingerprint != base_->model.fingerprint) continue;
        ran_.time = fit_time(*loaded_.run_log, *found);
        ran_.run = static_cast<int>(runs.rend() - found) - 1;
        break;
    }
    if (loaded_.run_log->skipped > 0 && loaded_.run_log->runs.empty()) {
        tell(Message::Kind::warning, utf8(loaded_.run_log_path) + ": " + loaded_.run_log->first_problem);
    }
}

void Document::reload(Loaded loaded) {
    const EditState mine = history_.now(), before = saved_;
    const bool had_edits = modified();
    const std::shared_ptr<const Profile> old = base_;
    const std::size_t selected = shown_.head, group = shown_.group;
    adopt(std::move(loaded));
    const bool same_shape = old->layers.size() == base_->layers.size() && mine.heads.size() == head_count();
    if (same_shape) {
        shown_.head = selected;
        shown_.group = std::min(group, base_->timestep_groups.size() - 1);
        recompute_head();
        recompute_overview();
    }
    std::string text = utf8(loaded_.profile_path.filename()) +
                       (store_.remote() ? " changed on the server" : " changed on disk") + " and was read again";
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
        tell(Message::Kind::error,
             utf8(path) + " is a run log, which is shown beside a profile: open a profile first.");
        return;
    }
    store_.bring(path, [=, this](const std::string& problem) {
        if (!problem.empty()) {
            tell(Message::Kind::warning, problem);
            return;
        }
        workers_.post(Priority::urgent, Ticket(), [=, this]() -> Workers::Delivery {
            try {
                auto log = std::make_shared<RunLog>(load_run_log(path));
                return [=, this] {
                    loaded_.run_log_path = path;
                    loaded_.run_log_stamp = store_.stamp(path);
                    watched_.log = {loaded_.run_log_stamp, loaded_.run_log_stamp, false};
                    take_run_log(std::move(*log));
                };
            } catch (const std::exception& error) {
                return [this, text = std::string(error.what())] { tell(Message::Kind::error, text); };
            }
        });
    });
}

void Document::open_comparison(const fs::path& path) {
    if (!base_) return;
    const fs::path file = kind_of(path) == FileKind::capture ? profile_of_capture(path) : path;
    const auto work = [=, this, mine = base_, state = history_.now()]() -> Workers::Delivery {
        try {
            const Profile other = load_profile(file);
            auto diff = std::make_shared<ProfileDiff>(
                diff_profiles(with_edits(*mine, state), other, kMassTile, std::max(1, workers_.threads())));
            const bool same_model = mine->model.fingerprint == other.model.fingerprint;
            return [=, this] { comparison_ = {file, std::move(*diff), same_model}; };
        } catch (const std::exception& error) {
            return [this, text = std::string(error.what())] { tell(Message::Kind::error, text); };
        }
    };
    store_.bring(file, [=, this, ticket = io_.opening](const std::string& problem) {
        if (!problem.empty()) {
            tell(Message::Kind::error, problem);
            return;
        }
        workers_.post(Priority::urgent, ticket, work);
    });
}

void Document::save_as(const fs::path& path) {
    if (!base_ || io_.saving) return;
    if (kind_of(path) != FileKind::profile) {
        tell(Message::Kind::error, utf8(path) + " must end in .json. Captures and run logs are not saved.", true);
        return;
    }
    // The file that is open may keep whatever name it has.
    const std::string name = utf8(path.stem());
    if (const std::string_view rule = profile_name_rule(name); !rule.empty() && path != loaded_.profile_path) {
        tell(Message::Kind::error,
             "The name of a profile " + std::string(rule) + ", or ComfyUI does not offer it (got \"" + name +
                 "\"). Save it as " + suggest_profile_name(name) + ".json, for one.",
             true);
        return;
    }
    io_.saving = true;
    Stamp read = path == loaded_.profile_path ? loaded_.profile_stamp : store_.stamp(path);
    // What is gone is written again.
    if (!store_.stamp(path).exists) read = {};
    workers_.post(Priority::urgent, Ticket(), [=, this, base = base_, state = history_.now()]() -> Workers::Delivery {
        try {
            auto profile = std::make_shared<const Profile>(profile_to_save(*base, state));
            const FileStore::Finish finish = store_.save(*profile, path, read);
            return [=, this] {
                finish([=, this](const Saved& saved) {
                    io_.saving = false;
                    if (!saved.refusal.empty()) {
                        tell(Message::Kind::error, "Not saved: " + saved.refusal, true);
                        return;
                    }
                    // Another file may have been opened meanwhile; then this one is simply saved.
                    if (base_ == base) end_save(profile, state, path, saved);
                });
            };
        } catch (const std::exception& error) {
            return [=, this, text = std::string(error.what())] {
                io_.saving = false;
                tell(Message::Kind::error, "Not saved: " + text, true);
            };
        }
    });
}

std::string Document::text() const { return dump_profile(profile_to_save(*base_, history_.now())); }

void Document::end_save(const std::shared_ptr<const Profile>& profile, const EditState& state, const fs::path& path,
                        const Saved& saved) {
    base_ = loaded_.profile = profile;
    saved_ = state;
    loaded_.profile_path = path;
    loaded_.profile_stamp = saved.stamp;
    watched_.profile = {saved.stamp, saved.stamp, false};
    tell(Message::Kind::info, "Saved " + utf8(path) + '.');
}

bool Document::changed(Seen& seen, const fs::path& path) {
    if (path.empty()) return false;
    const Stamp stamp = store_.stamp(path);
    const bool at_rest = store_.remote() || stamp == seen.noticed;
    seen.noticed = stamp;
    if (!stamp.exists) {
        // A file that never was is not missed.
        if (at_rest && seen.used.exists && !seen.missing_told) {
            seen.missing_told = true;
            tell(Message::Kind::warning, utf8(path) + " is gone. What was read stays; saving writes it again.");
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
    if (!base_ || now - watched_.looked < kInterval || io_.saving || io_.progress) return;
    watched_.looked = now;
    const bool profile = changed(watched_.profile, loaded_.profile_path);
    const fs::path capture =
        loaded_.capture_path.empty() ? capture_of_profile(loaded_.profile_path) : loaded_.capture_path;
    const bool captured = changed(watched_.capture, capture);
    if (captured && !profile && loaded_.profile_stamp.exists) {
        read_capture(capture);
        return;
    }
    if (profile || captured) {
        begin(loaded_.profile_stamp.exists || profile ? loaded_.profile_path : loaded_.asked, true);
        return;
    }
    fs::path log = loaded_.run_log_path;
    for (const fs::path& place : run_log_places(loaded_.profile_path)) {
        if (log.empty() && store_.stamp(place).exists) log = place;
    }
    if (changed(watched_.log, log)) open_run_log(log);
}

void Document::update(double now, bool idle) {
    workers_.deliver(0.004, idle);
    watch(now);
}

}  // namespace paro::viewer
