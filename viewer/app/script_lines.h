// A script's text as commands: read and checked before any of it runs. Knows no window.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace paro::viewer {

struct ScriptLine {
    int number = 0;  // from 1
    std::string text;
    std::vector<std::string> word;  // the command and what follows it
    friend bool operator==(const ScriptLine&, const ScriptLine&) = default;
};

// Throws Error naming the line: a command that is none, too few or too many words, a number out of its range, a script
// of more than 1 MB.
std::vector<ScriptLine> read_script(std::string_view text);

// `got OP wanted` of `expect`: numbers compare as such where both are, but for ~.
bool holds(const std::string& got, const std::string& op, const std::string& wanted);

}  // namespace paro::viewer
