// What the program around the panels asks of where it runs: a desktop, or a browser's page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "paro/paint.h"

namespace paro::viewer {

class Front {
   public:
    virtual ~Front() = default;
    // A setting's text; empty without.
    virtual std::string setting(const std::string& name) = 0;
    // Throws Error where it cannot be kept.
    virtual void keep(const std::string& name, const std::string& text) = 0;
    // A page is left by its browser's own means.
    virtual bool quits() const { return true; }
    // Throws Error. Returns what was done, as a sentence.
    virtual std::string save_picture(const Image& image, const std::filesystem::path& path) = 0;
    // Hands a file to the user, where files are not the user's own anyway; empty: there is nothing to hand out.
    virtual bool hands_out() const { return false; }
    virtual void hand_out(const std::string& /*text*/, const std::string& /*name*/) {}
};

}  // namespace paro::viewer
