// Where a document's files lie: on this machine's disk, or with a server that sends them. The document asks here for
// versions, brings a file within reach before it reads it, and saves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "paro/profile.h"

namespace paro::viewer {

// Size, time of change and number of a file; compares unequal once it was written again. Linux counts time in ticks of
// some milliseconds: two saves may share one, and then differ in their number alone. 0 on Windows, whose time is finer.
struct Stamp {
    bool exists = false;
    std::uintmax_t size = 0;
    std::uintmax_t number = 0;
    std::filesystem::file_time_type time{};
    friend bool operator==(const Stamp&, const Stamp&) = default;
};

// How a save ended. refusal: empty, or why the file is not what was to be saved.
struct Saved {
    Stamp stamp;
    std::string refusal;
};

struct Listed {
    std::filesystem::path path;
    bool folder = false;
};

class FileStore {
   public:
    using Ready = std::function<void(const std::string& problem)>;
    using Done = std::function<void(const Saved&)>;
    using Finish = std::function<void(Done)>;

    virtual ~FileStore() = default;
    virtual Stamp stamp(const std::filesystem::path& path) const = 0;
    // Files are elsewhere: each is brought before it is read, and none is ever seen half written.
    virtual bool remote() const { return false; }
    // Makes the newest version readable at its path. `ready` is called on the document's thread, at once where files
    // lie on a disk; problem: a sentence, or empty.
    virtual void bring(const std::filesystem::path&, Ready ready) { ready({}); }
    // What was brought has been read.
    virtual void release(const std::filesystem::path&) {}
    // Writes a profile, whole or not at all. Called on a worker's thread; throws Error. What it returns is called on
    // the document's thread and ends the save: at once, or when an answer comes. read: the version that the edits were
    // made of, for stores that others write to: they refuse to replace another one.
    virtual Finish save(const Profile& profile, const std::filesystem::path& path, const Stamp& read) = 0;
    // A folder's files and folders, at most 5000; problem: why there are none. Remote stores have one folder.
    virtual std::vector<Listed> list(const std::filesystem::path& folder, std::string& problem) const = 0;
};

// This machine's files.
FileStore& disk();

}  // namespace paro::viewer
