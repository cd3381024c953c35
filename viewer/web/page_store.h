// Profiles of a ComfyUI server. The page speaks HTTP; what it fetches it puts into the program's own file system, under
// the file's name. It tells which version of each file the server has; a version is an ETag of the server's.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "document/files/file_store.h"

namespace paro::viewer {

class PageStore : public FileStore {
   public:
    Stamp stamp(const std::filesystem::path& path) const override;
    bool remote() const override { return true; }
    void bring(const std::filesystem::path& path, Ready ready) override;
    void release(const std::filesystem::path& path) override;
    Finish save(const Profile& profile, const std::filesystem::path& path, const Stamp& read) override;
    std::vector<Listed> list(const std::filesystem::path& folder, std::string& problem) const override;

    // What the page tells. tag: empty where the server has no such file. True: it is another version than before.
    bool tell_version(const std::string& name, const std::string& tag);
    // Of the server's list of names: those of earlier lists that are no longer there are forgotten.
    void begin_list();
    void tell_listed(const std::string& name, const std::string& tag);
    // A file of the user's own, which the server does not have.
    void tell_own(const std::string& name);
    void tell_brought(int id, const std::string& tag, const std::string& problem);
    void tell_saved(int id, const std::string& tag, const std::string& refusal);

   private:
    struct Version {
        std::string tag;
        std::uint64_t number = 0;  // 0: the server has none
        std::uint64_t held = 0;    // number of the version that can be read here
        bool listed = false;
        bool own = false;  // of the user's machine: the server is not asked for it
    };
    struct Bringing {
        std::string name;
        Ready ready;
    };
    struct Saving {
        std::string name, text;  // kept until the answer comes
        Done done;
    };
    Stamp stamp_of(const Version& version) const;

    std::map<std::string, Version> versions_;
    std::map<std::uint64_t, std::string> tags_;  // by number, of versions that were read
    std::map<int, Bringing> bringing_;
    std::map<int, Saving> saving_;
    std::uint64_t next_version_ = 1;
    int next_id_ = 1;
};

}  // namespace paro::viewer
