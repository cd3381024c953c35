// The viewer's script language as text: what is refused before anything runs, and how values compare.
#include <catch2/catch_test_macros.hpp>

#include "app/script_lines.h"
#include "expect_error.h"

using namespace paro::viewer;

TEST_CASE("a script is read line by line") {
    const auto lines = read_script("# nothing\nopen a.json\n\n  drag map.FWH 0 0.5 1 -0.5 12 # far\nwait 2.5\n");
    REQUIRE(lines.size() == 3);
    CHECK(lines[0] == ScriptLine{2, "open a.json", {"open", "a.json"}});
    CHECK(lines[1].number == 4);
    CHECK(lines[1].word.size() == 7);
    CHECK(lines[2].word == std::vector<std::string>{"wait", "2.5"});
}

TEST_CASE("a script that cannot be run is refused with its line") {
    EXPECT_ERROR(read_script("wait\nfly away\n"), "line 2 must begin with a command");
    EXPECT_ERROR(read_script("open\n"), "line 1 open must have 1 to 1 words after it");
    // Each of them took all memory or ran for years.
    EXPECT_ERROR(read_script("frames 999999999999\n"), "line 1 frames must have a whole number from 0 to 100000");
    EXPECT_ERROR(read_script("key a 2000000000\n"), "line 1 key must have a whole number from 1 to 100000");
    EXPECT_ERROR(read_script("drag p 0 0 1 1 1e30\n"), "line 1 drag must have a whole number");
    EXPECT_ERROR(read_script("measure frames 1\n"), "line 1 measure must have a whole number from 2");
    EXPECT_ERROR(read_script("click p nan 0\n"), "line 1 click must have a number");
    EXPECT_ERROR(read_script("resize 1280 1e999\n"), "line 1 resize must have a number");
    EXPECT_ERROR(read_script(std::string(2u << 20, '\n')), "script must not exceed 1 MB");
    // No word is repeated in full.
    try {
        read_script(std::string(100'000, 'x'));
        FAIL("accepted");
    } catch (const paro::Error& error) {
        CHECK(std::string(error.what()).size() < 300);
    }
}

TEST_CASE("values of a script compare as numbers only where both are") {
    CHECK(holds("0.30", "==", "0.3"));
    CHECK(holds("10", ">", "9"));
    CHECK_FALSE(holds("10", ">", "nine"));
    CHECK(holds("a b", "~", "b"));
    // Found by fuzzing: neither equal nor different, or a number because nothing stood before a NUL.
    for (const std::string text : {std::string("nan"), std::string("inf"), std::string("\0\0", 2)}) {
        CHECK(holds(text, "==", text));
        CHECK_FALSE(holds(text, "!=", text));
    }
    CHECK_FALSE(holds(std::string("\0", 1), "==", "0"));
}
