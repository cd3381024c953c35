// Opening: a path becomes a profile, a capture and a run log, whichever lie there and belong together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "document/files/file_store.h"
#include "document/files/run_log.h"
#include "paro/capture.h"

namespace paro::viewer {

enum class FileKind : std::uint8_t { profile, capture, run_log };
// By name: *.capture.safetensors and *.safetensors, *.jsonl, everything else is taken for a profile.
FileKind kind_of(const std::filesystem::path& path);

struct Loaded {
    std::filesystem::path asked;                       // what was to be opened
    std::filesystem::path profile_path;                // where saving goes; may not exist yet for a lone capture
    std::filesystem::path capture_path, run_log_path;  // empty without
    std::shared_ptr<const Profile> profile;
    std::shared_ptr<const Capture> capture;  // its profile is left empty: it stands in `profile`
    std::optional<RunLog> run_log;
    Stamp profile_stamp, capture_stamp, run_log_stamp;
    std::vector<std::string> notes;  // what was left aside, and why
    double seconds = 0.0;
};

// Opens NAME.json with NAME.capture.safetensors beside it and the run log (beside it, or output/paro/ of the ComfyUI
// folder whose models/paro it lies in), starting from any of them. progress(share, what) is called on this thread.
// Throws Error naming file, place and rule when the file that was asked for cannot be read; what belongs to it and
// cannot be read becomes a note.
using Progressing = std::function<void(double, const std::string&)>;
Loaded open_files(const std::filesystem::path& path, const Progressing& progress = {}, FileStore& store = disk());

// The same in two parts, since captures are large: everything but a capture that lies beside its profile, whose path is
// then left in capture_path with no capture; and that capture. Of a remote store the first part leaves the run log out.
Loaded open_first(const std::filesystem::path& path, const Progressing& progress = {}, FileStore& store = disk());
void open_capture(Loaded& loaded, const Progressing& progress = {}, FileStore& store = disk());

// Where a capture's profile lies and the other way round: NAME.json <-> NAME.capture.safetensors.
std::filesystem::path profile_of_capture(const std::filesystem::path& capture);
std::filesystem::path capture_of_profile(const std::filesystem::path& profile);

// The run logs that are looked for, in order.
std::vector<std::filesystem::path> run_log_places(const std::filesystem::path& profile);

}  // namespace paro::viewer
