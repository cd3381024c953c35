// The viewer's settings: whatever the file holds, it starts, and what it writes it reads.
#include <fstream>

#include "document/files/preferences.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace paro::viewer;
    {
        std::ofstream file(fuzz::folder() / "viewer.json", std::ios::binary);
        file << fuzz::text_of(data, size);
    }
    const fuzz::Budget budget;
    Preferences read = load_preferences(fuzz::folder());
    fuzz::check(read.ui_scale == 0.0 || (read.ui_scale >= 0.5 && read.ui_scale <= 4.0), "a scale must be readable");
    fuzz::check(read.recent.size() <= 10, "recent files must be ten at most");
    if (read == Preferences{}) return 0;
    save_preferences(read, fuzz::folder());
    fuzz::check(load_preferences(fuzz::folder()) == read, "settings that are written must read back as they were");
    return 0;
}
