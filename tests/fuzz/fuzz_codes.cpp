// Base64, deflate, UTF-8, names of files: the smallest readers, each on the same bytes.
#include "files/base64.h"
#include "files/deflate.h"
#include "files/text.h"
#include "fuzz.h"
#include "paro/profile.h"
#include "paro/text_encoding.h"

namespace {

void try_base64(std::string_view text, std::span<const std::uint8_t> bytes) {
    if (const auto read = paro::detail::base64_decode(text)) {
        fuzz::check(paro::detail::base64_encode(*read) == text, "base64 must have one spelling");
    }
    const auto again = paro::detail::base64_decode(paro::detail::base64_encode(bytes));
    fuzz::check(again && std::ranges::equal(*again, bytes), "base64 must read back as it was");
}

void try_deflate(std::span<const std::uint8_t> bytes) {
    // Room that the bytes themselves ask for, so that streams which fit, are too long and too short all come.
    const std::size_t room = bytes.empty() ? 0 : std::size_t{bytes.front()} * 16;
    std::vector<std::uint8_t> out(room);
    paro::detail::inflate(bytes, out);
    if (bytes.size() % 8 != 0) return;  // deflating at the highest level takes longer than all the rest
    std::vector<std::uint8_t> again(bytes.size());
    const std::string_view wrong = paro::detail::inflate(paro::detail::deflate(bytes), again);
    fuzz::check(wrong.empty() && std::ranges::equal(again, bytes), "deflated bytes must inflate as they were");
}

void try_name(std::string_view text) {
    const std::string name = paro::suggest_profile_name(text);
    fuzz::check(paro::profile_name_rule(name).empty(), "a suggested name must be valid");
    fuzz::check(paro::suggest_profile_name(name) == name, "a valid name must be suggested as it is");
    if (paro::profile_name_rule(text).empty()) fuzz::check(name == text, "a valid name must stay");
    fuzz::accepted([&] { paro::validate_profile_name(text); });
}

void try_text(std::string_view text) {
    const std::string shown = paro::detail::clean(text, 80);
    fuzz::check(shown.size() <= 80, "cleaned text must fit its limit");
    char32_t code = 0;
    for (std::size_t at = 0; at < shown.size();) {
        const std::size_t length = paro::detail::decode_utf8(shown, at, code);
        fuzz::check(length > 0 && paro::detail::is_printable(code), "cleaned text must be printable");
        at += length;
    }
    paro::wide_encoding(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const fuzz::Budget budget;
    const std::string_view text = fuzz::text_of(data, size);
    const std::span<const std::uint8_t> bytes(data, size);
    try_base64(text, bytes);
    try_deflate(bytes);
    try_name(text);
    try_text(text);
    return 0;
}
