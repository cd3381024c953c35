// The one throwing check family of the core: every refusal names the argument, the rule and the value received.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace paro {

// Thrown for every bad argument and every malformed file. what() reads "<argument> <rule> (got <value>)".
class Error : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

template <typename Value>
[[noreturn]] void fail(std::string_view argument, std::string_view rule, const Value& value) {
    std::ostringstream text;
    text << argument << ' ' << rule << " (got " << value << ')';
    throw Error(text.str());
}

// require(block > 0, "block_q", "must be positive", block)
template <typename Value>
void require(bool condition, std::string_view argument, std::string_view rule, const Value& value) {
    if (!condition) fail(argument, rule, value);
}

}  // namespace paro
