// Files as strangers and crashes leave them: only regular ones are read, and a write replaces a file whole or not at
// all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace paro::detail {

// A path for messages.
std::string show(const std::filesystem::path& path);

// Opens without waiting (a FIFO would), follows links, and throws Error for anything but a regular file.
class InputFile {
   public:
    explicit InputFile(const std::filesystem::path& path);
    ~InputFile();
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;

    std::uint64_t size() const { return size_; }  // when it was opened
    // Throws Error if the file ends first.
    void read(std::span<std::uint8_t> out);
    void read(std::span<char> out);

   private:
    std::filesystem::path path_;
    int handle_ = -1;
    std::uint64_t size_ = 0;
};

// A temporary file beside the target, moved over it by commit() once its bytes are on the disk; removed otherwise.
class AtomicFile {
   public:
    explicit AtomicFile(const std::filesystem::path& target);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::uint8_t> bytes);
    void write(std::string_view text);
    void commit();

   private:
    std::filesystem::path target_, temporary_;
    int handle_ = -1;
};

}  // namespace paro::detail
