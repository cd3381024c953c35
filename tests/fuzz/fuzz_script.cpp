// The viewer's script language: commands, their numbers, comparisons.
#include "app/script_lines.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace paro::viewer;
    const fuzz::Budget budget;
    fuzz::accepted([&] {
        const std::vector<ScriptLine> lines = read_script(fuzz::text_of(data, size));
        std::string again;
        int before = 0;
        for (const ScriptLine& line : lines) {
            fuzz::check(!line.word.empty() && line.number > before, "a command must have words, and come in order");
            again.append(static_cast<std::size_t>(line.number - before - 1), '\n').append(line.text).append("\n");
            before = line.number;
            if (line.word.size() > 3) {
                const bool equal = holds(line.word[1], "==", line.word[3]),
                           other = holds(line.word[1], "!=", line.word[3]);
                fuzz::check(equal != other, "a value must be equal or not");
                holds(line.word[1], line.word[2], line.word[3]);
            }
        }
        fuzz::check(read_script(again) == lines, "the same lines must be the same commands");
    });
    return 0;
}
