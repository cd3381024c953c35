#include "app/gl.h"

namespace paro::viewer::gl {

namespace {

Functions functions{};

std::string text(unsigned what) {
    const unsigned char* found = functions.get_string(what);
    return found == nullptr ? "unknown" : reinterpret_cast<const char*>(found);
}

}  // namespace

void use(const Functions& of_context) { functions = of_context; }

const Functions& f() { return functions; }

std::string description() { return text(kVersion) + " on " + text(kRenderer); }

}  // namespace paro::viewer::gl
