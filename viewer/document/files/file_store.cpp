#include "document/files/file_store.h"

#include "document/files/utf8.h"

#ifndef _WIN32
#include <sys/stat.h>
#endif

namespace paro::viewer {

namespace fs = std::filesystem;

namespace {

std::uintmax_t file_number(const fs::path& path) {
#ifdef _WIN32
    static_cast<void>(path);
    return 0;
#else
    struct stat found {};
    return ::stat(path.c_str(), &found) == 0 ? static_cast<std::uintmax_t>(found.st_ino) : 0;
#endif
}

class Disk : public FileStore {
   public:
    Stamp stamp(const fs::path& path) const override {
        Stamp stamp;
        std::error_code error;
        if (!fs::is_regular_file(path, error)) return stamp;
        stamp.size = fs::file_size(path, error);
        if (error) return {};
        stamp.time = fs::last_write_time(path, error);
        if (error) return {};
        stamp.number = file_number(path);
        stamp.exists = true;
        return stamp;
    }

    Finish save(const Profile& profile, const fs::path& path, const Stamp&) override {
        save_profile(profile, path);
        return [saved = Saved{stamp(path), {}}](const Done& done) { done(saved); };
    }

    std::vector<Listed> list(const fs::path& folder, std::string& problem) const override {
        constexpr std::size_t kMost = 5000;
        std::vector<Listed> found;
        std::error_code error;
        for (fs::directory_iterator entry(folder, fs::directory_options::skip_permission_denied, error), end;
             !error && entry != end && found.size() < kMost; entry.increment(error)) {
            std::error_code ignored;
            found.push_back({entry->path(), entry->is_directory(ignored)});
        }
        if (error) problem = utf8(folder) + ": " + error.message();
        return found;
    }
};

}  // namespace

FileStore& disk() {
    static Disk only;
    return only;
}

}  // namespace paro::viewer
