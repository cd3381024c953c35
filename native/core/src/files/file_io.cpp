#include "files/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <system_error>

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include "files/text.h"

namespace paro::detail {
namespace {

namespace fs = std::filesystem;

// One name for each call on both families of systems. Handles are never inherited by child processes.
#ifdef _WIN32
int open_input(const fs::path& path) { return ::_wopen(path.c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT); }
int open_new(const fs::path& path) {
    return ::_wopen(path.c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
}
std::int64_t read_some(int handle, void* out, unsigned size) { return ::_read(handle, out, size); }
std::int64_t write_some(int handle, const void* bytes, unsigned size) { return ::_write(handle, bytes, size); }
bool flush(int handle) { return ::_commit(handle) == 0; }
bool close_handle(int handle) { return ::_close(handle) == 0; }
bool regular_size(int handle, std::uint64_t& size) {
    struct _stat64 status;
    if (::_fstat64(handle, &status) != 0 || (status.st_mode & _S_IFMT) != _S_IFREG) return false;
    size = static_cast<std::uint64_t>(status.st_size);
    return true;
}
#else
int open_input(const fs::path& path) { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); }
int open_new(const fs::path& path) { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); }
std::int64_t read_some(int handle, void* out, unsigned size) { return ::read(handle, out, size); }
std::int64_t write_some(int handle, const void* bytes, unsigned size) { return ::write(handle, bytes, size); }
bool flush(int handle) { return ::fsync(handle) == 0; }
bool close_handle(int handle) { return ::close(handle) == 0; }
bool regular_size(int handle, std::uint64_t& size) {
    struct stat status;
    if (::fstat(handle, &status) != 0 || !S_ISREG(status.st_mode)) return false;
    size = static_cast<std::uint64_t>(status.st_size);
    return true;
}
#endif

constexpr std::size_t kPiece = std::size_t{1} << 26;  // one system call moves less than 2 GiB everywhere

std::string last_error() { return std::generic_category().message(errno); }

// A new file no one else has: names start with a dot, so that no search for profiles takes one.
int open_temporary(const fs::path& folder, fs::path& path) {
    std::random_device random;
    for (int attempt = 0; attempt < 16; ++attempt) {
        path = folder / (".paro-" + std::to_string(random()) + '-' + std::to_string(random()) + ".tmp");
        const int handle = open_new(path);
        if (handle >= 0 || errno != EEXIST) return handle;
    }
    return -1;
}

}  // namespace

std::string show(const fs::path& path) {
    try {
        const auto text = path.u8string();
        return clean(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()), 400);
    } catch (const std::system_error&) {
        return "the file, whose name is no Unicode text,";  // half a surrogate pair, on Windows alone
    }
}

InputFile::InputFile(const fs::path& path) : path_(path) {
    // A directory cannot be opened at all on Windows; asking first gives the same answer everywhere.
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) fail(show(path), "must be a regular file", "a directory");
    handle_ = open_input(path);
    if (handle_ < 0) fail(show(path), "must be readable", last_error());
    if (!regular_size(handle_, size_)) {
        close_handle(handle_);
        fail(show(path), "must be a regular file", "a pipe or device");
    }
}

InputFile::~InputFile() { close_handle(handle_); }

void InputFile::read(std::span<std::uint8_t> out) {
    while (!out.empty()) {
        const std::int64_t count = read_some(handle_, out.data(), static_cast<unsigned>(std::min(out.size(), kPiece)));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail(show(path_), "must be readable", last_error());
        if (count == 0)
            fail(show(path_), "must not shrink while it is read", std::to_string(out.size()) + " bytes fewer");
        out = out.subspan(static_cast<std::size_t>(count));
    }
}

void InputFile::read(std::span<char> out) { read(std::span(reinterpret_cast<std::uint8_t*>(out.data()), out.size())); }

AtomicFile::AtomicFile(const fs::path& target) : target_(target) {
    std::error_code ignored;
    if (fs::is_directory(target, ignored)) fail(show(target), "must be a file", "a directory");
    handle_ = open_temporary(target.parent_path(), temporary_);
    if (handle_ < 0) fail(show(target), "must be in a folder that can be written to", last_error());
}

AtomicFile::~AtomicFile() {
    if (handle_ >= 0) close_handle(handle_);
    std::error_code ignored;
    if (!temporary_.empty()) fs::remove(temporary_, ignored);
}

void AtomicFile::write(std::span<const std::uint8_t> bytes) {
    while (!bytes.empty()) {
        const auto size = static_cast<unsigned>(std::min(bytes.size(), kPiece));
        const std::int64_t count = write_some(handle_, bytes.data(), size);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail(show(target_), "could not be written", last_error());
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
}

void AtomicFile::write(std::string_view text) {
    write(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

void AtomicFile::commit() {
    if (!flush(handle_)) fail(show(target_), "could not be written", last_error());
    // Some file systems report a full disk only here.
    const bool closed = close_handle(handle_);
    handle_ = -1;
    if (!closed) fail(show(target_), "could not be written", last_error());
    std::error_code error;
    fs::rename(temporary_, target_, error);
    if (error) fail(show(target_), "could not be replaced", error.message());
    temporary_.clear();
#ifndef _WIN32
    // The new name itself must survive a crash. Not every file system can do it, and the file is whole either way.
    const fs::path folder = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
    const int handle = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (handle >= 0) {
        flush(handle);
        close_handle(handle);
    }
#endif
}

}  // namespace paro::detail
