// A profile's JSON. "@codes@" stands for codes deflated and in base64, which no mutation of bytes would ever hit.
#include "files/base64.h"
#include "files/deflate.h"
#include "fuzz.h"
#include "paro/profile.h"

namespace {

std::string expand(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t open = std::min(text.find('@', at), text.size());
        out += text.substr(at, open - at);
        if (open == text.size()) break;
        const std::size_t close = std::min(text.find('@', open + 1), text.size());
        const std::string_view codes = text.substr(open + 1, close - open - 1);
        out += paro::detail::base64_encode(
            paro::detail::deflate({reinterpret_cast<const std::uint8_t*>(codes.data()), codes.size()}));
        at = close + 1;
    }
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text = expand(fuzz::text_of(data, size));
    const fuzz::Budget budget;
    fuzz::accepted([&] {
        const paro::Profile read = paro::parse_profile(text);
        // What is accepted holds every rule, and is written and read again.
        paro::validate(read);
        const std::string written = paro::dump_profile(read);
        const paro::Profile again = paro::parse_profile(written);
        fuzz::check(again == read, "a profile that is written must read back as it was");
        fuzz::check(paro::dump_profile(again) == written, "the same profile must be written in the same bytes");
    });
    return 0;
}
