#include "app/script_lines.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "paro/error.h"

namespace paro::viewer {

namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

// Finite: nan is equal to nothing and different from nothing, so it is compared as text.
bool is_number(const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return !text.empty() && end == text.c_str() + text.size() && std::isfinite(value);
}

std::vector<std::string> words_of(const std::string& line) {
    std::vector<std::string> words;
    std::istringstream stream(line);
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

struct Verb {
    std::size_t least, most;           // words after the verb
    std::size_t first = 0, count = 0;  // of the command's words, those that are numbers: a share, seconds, steps
    std::size_t whole = 0;             // the word that says how often; 0: none does
    int from = 0;                      // the least that it may say
};

const std::map<std::string, Verb, std::less<>>& verbs() {
    static const std::map<std::string, Verb, std::less<>> all = {
        {"open", {1, 1}},
        {"wait", {0, 1, 1, 1}},
        {"frames", {1, 1, 0, 0, 1, 0}},
        {"move", {1, 3, 2, 2}},
        {"click", {1, 3, 2, 2}},
        {"wheel", {2, 2, 2, 1}},
        {"doubleclick", {1, 3, 2, 2}},
        {"drag", {5, 6, 2, 4, 6, 1}},
        {"key", {1, 2, 0, 0, 2, 1}},
        {"type", {1, 99}},
        {"expect", {3, 99}},
        {"let", {3, 3}},
        {"print", {1, 1}},
        {"theme", {1, 1}},
        {"screenshot", {1, 2}},
        {"resize", {2, 3, 1, 3}},
        {"maximise", {0, 1}},
        {"dialog", {1, 2}},
        {"drop", {1, 1}},
        // Times are differences of frames, and the first one warms up.
        {"measure", {1, 2, 0, 0, 2, 2}},
        {"until", {3, 99}},
        {"where", {1, 1}},
        {"texts", {0, 0}},
        {"readable", {0, 1}},
        {"note", {3, 99, 2, 1}},
    };
    return all;
}

std::string shown(const std::string& word) { return word.substr(0, 80); }

void check_numbers(const std::string& place, const Verb& verb, const std::vector<std::string>& word) {
    constexpr double kMost = 100'000.0;
    for (std::size_t i = verb.first; i < std::min(verb.first + verb.count, word.size()); ++i) {
        const double value = std::strtod(word[i].c_str(), nullptr);
        require(is_number(word[i]) && std::abs(value) <= kMost, place,
                word[0] + " must have a number of at most 100000 as word " + std::to_string(i), shown(word[i]));
    }
    if (verb.whole == 0 || verb.whole >= word.size()) return;
    const std::string& text = word[verb.whole];
    int value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    require(error == std::errc() && end == text.data() + text.size() && value >= verb.from && value <= kMost, place,
            word[0] + " must have a whole number from " + std::to_string(verb.from) + " to 100000 as word " +
                std::to_string(verb.whole),
            shown(text));
}

}  // namespace

std::vector<ScriptLine> read_script(std::string_view text) {
    require(text.size() <= kMaxBytes, "script", "must not exceed 1 MB", text.size());
    std::vector<ScriptLine> lines;
    std::istringstream stream{std::string(text)};
    int number = 0;
    for (std::string line; std::getline(stream, line);) {
        ++number;
        std::vector<std::string> words = words_of(line.substr(0, line.find('#')));
        if (words.empty()) continue;
        const auto verb = verbs().find(words[0]);
        const std::string place = "line " + std::to_string(number);
        require(verb != verbs().end(), place, "must begin with a command (app/script.h lists them)", shown(words[0]));
        const std::size_t count = words.size() - 1;
        require(count >= verb->second.least && count <= verb->second.most, place,
                words[0] + " must have " + std::to_string(verb->second.least) + " to " +
                    std::to_string(verb->second.most) + " words after it",
                count);
        check_numbers(place, verb->second, words);
        lines.push_back({number, line, std::move(words)});
    }
    return lines;
}

bool holds(const std::string& got, const std::string& op, const std::string& wanted) {
    if (op == "~") return got.find(wanted) != std::string::npos;
    if (is_number(got) && is_number(wanted)) {
        const double a = std::strtod(got.c_str(), nullptr), b = std::strtod(wanted.c_str(), nullptr);
        const double near = 1e-9 * std::max(1.0, std::abs(b));
        if (op == "==") return std::abs(a - b) <= near;
        if (op == "!=") return std::abs(a - b) > near;
        if (op == "<") return a < b;
        if (op == "<=") return a <= b + near;
        if (op == ">") return a > b;
        if (op == ">=") return a >= b - near;
    }
    if (op == "==") return got == wanted;
    if (op == "!=") return got != wanted;
    return false;
}

}  // namespace paro::viewer
