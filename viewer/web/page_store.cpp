#include "web/page_store.h"

#include <emscripten/emscripten.h>

#include "document/files/utf8.h"

// clang-format off
EM_JS(void, page_fetch, (int id, const char* name), { Module.page.fetch(id, UTF8ToString(name)) })
EM_JS(void, page_save, (int id, const char* name, const char* text, int size, const char* tag), {
    // A copy: memory may grow, and move, while it is sent.
    Module.page.save(id, UTF8ToString(name), HEAPU8.slice(text, text + size), UTF8ToString(tag))
})
EM_JS(void, page_list, (), { Module.page.list() })
// clang-format on

namespace paro::viewer {

namespace fs = std::filesystem;

Stamp PageStore::stamp_of(const Version& version) const {
    if (version.number == 0) return {};
    using Time = fs::file_time_type;
    return {.exists = true, .time = Time(Time::duration(static_cast<Time::rep>(version.number)))};
}

Stamp PageStore::stamp(const fs::path& path) const {
    const auto found = versions_.find(utf8(path));
    return found == versions_.end() ? Stamp{} : stamp_of(found->second);
}

void PageStore::bring(const fs::path& path, Ready ready) {
    const std::string name = utf8(path);
    const auto found = versions_.find(name);
    if (found != versions_.end() && found->second.held != 0 && found->second.held == found->second.number) {
        ready({});
        return;
    }
    const int id = next_id_++;
    bringing_[id] = {name, std::move(ready)};
    page_fetch(id, name.c_str());
}

void PageStore::release(const fs::path& path) {
    std::error_code ignored;
    fs::remove(path, ignored);
    if (const auto found = versions_.find(utf8(path)); found != versions_.end()) found->second.held = 0;
}

FileStore::Finish PageStore::save(const Profile& profile, const fs::path& path, const Stamp& read) {
    const auto found = tags_.find(static_cast<std::uint64_t>(read.time.time_since_epoch().count()));
    const std::string tag = read.exists && found != tags_.end() ? found->second : "";
    return [this, name = utf8(path), text = dump_profile(profile), tag](const Done& done) {
        const int id = next_id_++;
        Saving& saving = saving_[id] = {name, text, done};
        page_save(id, name.c_str(), saving.text.data(), static_cast<int>(saving.text.size()), tag.c_str());
    };
}

std::vector<Listed> PageStore::list(const fs::path&, std::string&) const {
    std::vector<Listed> found;
    for (const auto& [name, version] : versions_) {
        if (version.number != 0) found.push_back({path_of(name), false});
    }
    return found;
}

bool PageStore::tell_version(const std::string& name, const std::string& tag) {
    Version& version = versions_[name];
    if (version.own && tag.empty()) return false;
    version.own = false;
    if (version.tag == tag && (version.number != 0) == !tag.empty()) return false;
    version.tag = tag;
    version.number = tag.empty() ? 0 : next_version_++;
    if (version.number != 0) tags_[version.number] = tag;
    return true;
}

void PageStore::begin_list() {
    std::erase_if(versions_, [](const auto& entry) { return entry.second.listed && entry.second.held == 0; });
}

void PageStore::tell_listed(const std::string& name, const std::string& tag) {
    tell_version(name, tag);
    versions_[name].listed = true;
}

void PageStore::tell_own(const std::string& name) {
    Version& version = versions_[name];
    // Without a tag: it is put to the server only where there is none of this name.
    version.tag.clear();
    version.own = true;
    version.number = version.held = next_version_++;
}

void PageStore::tell_brought(int id, const std::string& tag, const std::string& problem) {
    const auto found = bringing_.find(id);
    if (found == bringing_.end()) return;
    const Bringing bringing = std::move(found->second);
    bringing_.erase(found);
    if (problem.empty()) {
        tell_version(bringing.name, tag);
        versions_[bringing.name].held = versions_[bringing.name].number;
    }
    bringing.ready(problem);
}

void PageStore::tell_saved(int id, const std::string& tag, const std::string& refusal) {
    const auto found = saving_.find(id);
    if (found == saving_.end()) return;
    const Saving saving = std::move(found->second);
    saving_.erase(found);
    if (!refusal.empty()) {
        saving.done({{}, refusal});
        return;
    }
    tell_version(saving.name, tag);
    Version& version = versions_[saving.name];
    version.held = 0;  // what can be read here is the version before
    saving.done({stamp_of(version), {}});
}

}  // namespace paro::viewer
