#include "document/files/files.h"

#include <chrono>

#include "document/files/utf8.h"
#include "paro/error.h"

namespace paro::viewer {

namespace fs = std::filesystem;

namespace {

constexpr const char* kCaptureEnd = ".capture.safetensors";

bool ends_with(const fs::path& path, const std::string& end) { return utf8(path.filename()).ends_with(end); }

std::string name_of(const fs::path& path) { return utf8(path.filename()); }

// Whether kernels of one may be shown with rows of the other: same model, layers and grids.
bool belong_together(const Profile& profile, const Profile& captured) {
    if (profile.model.fingerprint != captured.model.fingerprint) return false;
    if (profile.model.heads != captured.model.heads) return false;
    if (profile.timestep_groups.size() != captured.timestep_groups.size()) return false;
    if (profile.layers.size() != captured.layers.size()) return false;
    for (std::size_t i = 0; i < profile.layers.size(); ++i) {
        if (profile.layers[i].id != captured.layers[i].id) return false;
    }
    return true;
}

void load_log(Loaded& out, const FileStore& store, const fs::path& path, bool asked) {
    out.run_log_stamp = store.stamp(path);
    if (!out.run_log_stamp.exists && !asked) return;
    try {
        out.run_log = load_run_log(path);
        out.run_log_path = path;
    } catch (const Error& error) {
        if (asked) throw;
        out.notes.push_back(error.what());
    }
}

void attach_capture(Loaded& out, FileStore& store, const fs::path& path, const std::function<void(double)>& progress,
                    bool asked) {
    out.capture_stamp = store.stamp(path);
    if (!out.capture_stamp.exists && !asked) return;
    auto capture = std::make_shared<Capture>();
    try {
        *capture = load_capture(path, progress);
        store.release(path);
    } catch (const Error& error) {
        if (asked) throw;
        out.notes.push_back(error.what());
        return;
    }
    if (out.profile && !belong_together(*out.profile, capture->profile)) {
        const std::string other = "belongs to another profile than ";
        if (!asked) {
            out.notes.push_back(name_of(path) + ' ' + other + name_of(out.profile_path) + ", so it is not shown");
            return;
        }
        out.notes.push_back(name_of(out.profile_path) + ' ' + other + name_of(path) + ", so the captured one is shown");
        out.profile = nullptr;
        out.profile_path.clear();
    }
    if (!out.profile) out.profile = std::make_shared<const Profile>(std::move(capture->profile));
    capture->profile = {};
    out.capture = std::move(capture);
    out.capture_path = path;
}

}  // namespace

FileKind kind_of(const fs::path& path) {
    if (ends_with(path, ".safetensors")) return FileKind::capture;
    return ends_with(path, ".jsonl") ? FileKind::run_log : FileKind::profile;
}

fs::path profile_of_capture(const fs::path& capture) {
    std::string name = name_of(capture);
    const std::string end = ends_with(capture, kCaptureEnd) ? kCaptureEnd : ".safetensors";
    name.resize(name.size() - std::min(name.size(), end.size()));
    return capture.parent_path() / (name + ".json");
}

fs::path capture_of_profile(const fs::path& profile) {
    std::string name = name_of(profile);
    if (name.ends_with(".json")) name.resize(name.size() - 5);
    return profile.parent_path() / (name + kCaptureEnd);
}

std::vector<fs::path> run_log_places(const fs::path& profile) {
    const fs::path folder = profile.parent_path();
    return {folder / "runlog.jsonl", folder / ".." / ".." / "output" / "paro" / "runlog.jsonl"};
}

Loaded open_first(const fs::path& path, const Progressing& progress, FileStore& store) {
    const auto begun = std::chrono::steady_clock::now();
    const auto tell = [&](double share, const std::string& what) {
        if (progress) progress(share, what);
    };
    Loaded out;
    out.asked = path;
    const FileKind kind = kind_of(path);
    require(kind != FileKind::run_log, utf8(path), "must be a profile or a capture; open a run log beside one",
            "a run log");
    const bool from_capture = kind == FileKind::capture;
    out.profile_path = from_capture ? profile_of_capture(path) : path;
    out.profile_stamp = store.stamp(out.profile_path);
    if (!from_capture || out.profile_stamp.exists) {
        tell(0.02, "Reading " + name_of(out.profile_path));
        try {
            out.profile = std::make_shared<const Profile>(load_profile(out.profile_path));
        } catch (const Error& error) {
            if (!from_capture) throw;
            out.notes.push_back(std::string(error.what()) + "; the capture's own profile is shown");
        }
    }
    // A capture that was asked for must be readable; it may also be the only one to hold a profile.
    const fs::path capture = from_capture ? path : capture_of_profile(path);
    if (from_capture) {
        const auto share = [&](double part) { tell(0.1 + 0.85 * part, "Reading " + name_of(capture)); };
        attach_capture(out, store, capture, share, true);
    } else if (store.stamp(capture).exists) {
        out.capture_path = capture;
    }
    if (out.profile_path.empty()) out.profile_path = path.parent_path() / (utf8(path.stem()) + ".edited.json");
    tell(0.96, "Reading the run log");
    for (const fs::path& place : run_log_places(out.profile_path)) {
        if (!out.run_log && !store.remote()) load_log(out, store, place, false);
    }
    out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    return out;
}

void open_capture(Loaded& loaded, const Progressing& progress, FileStore& store) {
    if (loaded.capture || loaded.capture_path.empty()) return;
    const fs::path capture = loaded.capture_path;
    loaded.capture_path.clear();
    const auto share = [&](double part) {
        if (progress) progress(part, "Reading " + name_of(capture));
    };
    attach_capture(loaded, store, capture, share, false);
}

Loaded open_files(const fs::path& path, const Progressing& progress, FileStore& store) {
    Loaded out = open_first(path, progress, store);
    open_capture(out, progress, store);
    return out;
}

}  // namespace paro::viewer
