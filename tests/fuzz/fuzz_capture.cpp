// Captures. What begins with '{' is a header without its size, the tensors after the first NUL; "@P" in it stands for a
// profile. Everything else is a file as it is.
#include "fuzz.h"
#include "paro/capture.h"
#include "profile_samples.h"

namespace {

const std::string& escaped_profile() {
    static const std::string text = [] {
        const paro::Grid grid{1, 2, 2};
        std::string out;
        for (const char c : dump_profile(samples::profile(grid, 1, 2, 1, paro::Bins::even(grid)))) {
            if (c == '"' || c == '\\') out += '\\';
            out += c == '\n' ? ' ' : c;
        }
        return out;
    }();
    return text;
}

std::string file_of(std::string_view text) {
    if (!text.starts_with('{')) return std::string(text);
    const std::size_t end = std::min(text.find('\0'), text.size());
    std::string header(text.substr(0, end)), out;
    if (const auto at = header.find("@P"); at != header.npos) header.replace(at, 2, escaped_profile());
    for (int i = 0; i < 8; ++i) out += static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
    return out + header + std::string(text.substr(std::min(end + 1, text.size())));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static fuzz::MemoryFile file;
    static int kept = 0;
    file.hold(file_of(fuzz::text_of(data, size)));
    const fuzz::Budget budget;
    fuzz::accepted([&] {
        double told = 0.0;
        const paro::Capture read = paro::load_capture(file.path(), [&](double share) {
            fuzz::check(share >= told && share <= 1.0, "progress must grow to 1");
            told = share;
        });
        // A write to the disk is dear: of those that are accepted one in eight.
        if (kept++ % 8 != 0) return;
        const std::filesystem::path copy = fuzz::folder() / "copy.safetensors";
        paro::save_capture(read, copy);
        fuzz::check(paro::load_capture(copy) == read, "a capture that is written must read back as it was");
    });
    return 0;
}
