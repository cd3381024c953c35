// Files that were saved in another encoding than UTF-8: told by name, so that people know what to change.
#pragma once

#include <string_view>

namespace paro {

// "UTF-16 (little-endian)" and the like for text in UTF-16 or UTF-32, with a byte order mark or without (JSON starts
// with an ASCII character); empty for anything else.
std::string_view wide_encoding(std::string_view bytes);

}  // namespace paro
