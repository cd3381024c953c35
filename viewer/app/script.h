// Scripts: what a user does, line by line, for tests and pictures. Input goes through ImGui's own queue, so a script
// clicks what a hand would click.
//
//   open FILE                        wait [SECONDS]              frames N
//   move PLACE [X Y]                 click PLACE [X Y]           doubleclick PLACE [X Y]
//   drag PLACE X0 Y0 X1 Y1 [FRAMES]  wheel PLACE STEPS           key CHORD [TIMES]      type TEXT
//   expect NAME OP VALUE             until NAME OP VALUE (a minute at most)
//   let NAME = VALUE_NAME            print NAME                  where PLACE
//   screenshot FILE [PANEL]          maximise [PANEL]            theme dark|light       resize W H [SCALE]
//   dialog save_as|open|compare|run_log|export PANEL             drop FILE              measure NAME ...
//   readable [WORD]                  texts                       note PLACE DOWN TEXT
//
// readable fails where a text cannot be read: cut off, covered or on another one (readable.h); the script goes on, and
// WORD says in the failure what was looked at. texts prints every text and its place. note draws TEXT from PLACE on,
// DOWN being a share of its height: to try `readable` itself.
//
// PLACE is an anchor ("density.slider"); X and Y are shares of it, 0.5 by default. OP is one of == != < <= > >= ~
// (holds the text). $NAME in VALUE stands for what `let` kept. # begins a comment.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "app/script_lines.h"

namespace paro::viewer {

class App;

class Script {
   public:
    // Throws Error naming the line of a command that is none, or cannot be.
    static Script parse(const std::string& text, const std::filesystem::path& folder);
    static Script load(const std::filesystem::path& path);

    // Before each frame.
    void step(App& app);
    bool done() const { return stopped_ || (next_ == commands_.size() && frames_.empty()); }
    bool failed() const { return !failures_.empty(); }
    const std::vector<std::string>& failures() const { return failures_; }
    int expectations() const { return expectations_; }

   private:
    using Command = ScriptLine;

    void run(App& app, const Command& command);
    void run_input(App& app, const Command& command);
    void expect(App& app, const Command& command);
    void until(App& app, const Command& command);
    // Whether `NAME OP VALUE` of the command holds; got is the value.
    bool check(App& app, const Command& command, std::string& got) const;
    void measure(App& app, const Command& command);
    void screenshot(const Command& command);
    void read(App& app, const Command& command);
    void wait(App& app, double seconds);
    // A failure after which the script goes on, and one that ends it.
    void note(const Command& command, const std::string& reason);
    void fail(const Command& command, const std::string& reason);
    // Queues something for a frame of its own.
    void then(std::function<void(App&)> action) { frames_.push_back(std::move(action)); }
    std::string value(const std::string& word) const;
    std::filesystem::path file(const std::string& word) const;

    std::vector<Command> commands_;
    std::size_t next_ = 0;
    std::deque<std::function<void(App&)>> frames_;
    std::map<std::string, std::string> kept_;
    std::vector<std::string> failures_;
    std::filesystem::path folder_;
    int expectations_ = 0;
    bool stopped_ = false;
};

}  // namespace paro::viewer
