// base64, zlib and the text of messages.
#include <catch2/catch_test_macros.hpp>
#include <numeric>
#include <random>

#include "../../../native/core/src/files/base64.h"
#include "../../../native/core/src/files/deflate.h"
#include "../../../native/core/src/files/text.h"

using namespace paro::detail;

namespace {

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

TEST_CASE("base64 follows RFC 4648", "[encoding]") {
    const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                           {"f", "Zg=="},
                                                           {"fo", "Zm8="},
                                                           {"foo", "Zm9v"},
                                                           {"foob", "Zm9vYg=="},
                                                           {"fooba", "Zm9vYmE="},
                                                           {"foobar", "Zm9vYmFy"}};
    for (const auto& [plain, encoded] : vectors) {
        CHECK(base64_encode(bytes(plain)) == encoded);
        CHECK(base64_decode(encoded) == bytes(plain));
    }
    std::vector<std::uint8_t> all(256);
    std::iota(all.begin(), all.end(), std::uint8_t{0});
    CHECK(base64_decode(base64_encode(all)) == all);
}

TEST_CASE("base64 has one spelling for each value", "[encoding]") {
    for (const char* bad :
         {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "====", "Z===", "=Zg=", "Zm 9", "Zm9v\n", "Zm-_", "Zm9\xFF"}) {
        INFO(bad);
        CHECK_FALSE(base64_decode(bad).has_value());
    }
}

TEST_CASE("zlib streams of the expected size inflate, others are refused", "[encoding]") {
    std::mt19937 random(5);
    for (const std::size_t size : {1u, 880u, 100000u}) {
        std::vector<std::uint8_t> plain(size);
        for (auto& byte : plain) byte = static_cast<std::uint8_t>(random() % 7);
        std::vector<std::uint8_t> packed = deflate(plain), out(size);
        CHECK(inflate(packed, out) == "");
        CHECK(out == plain);
        out.resize(size + 1);
        CHECK(inflate(packed, out) == "fewer bytes");
        if (size > 1) {
            out.resize(size - 1);
            CHECK(inflate(packed, out) == "more bytes");
        }
        out.resize(size);
        packed.push_back(0);
        CHECK(inflate(packed, out) == "bytes after the zlib stream");
        packed.resize(packed.size() - 2);
        CHECK(inflate(packed, out) != "");
    }
    std::vector<std::uint8_t> one(1);
    CHECK(inflate({}, one) == "a zlib stream that ends too early");
    // 64 MB of zeros in 64 KB: no byte is written past the one that is expected.
    const std::vector<std::uint8_t> bomb = deflate(std::vector<std::uint8_t>(64u << 20));
    CHECK(bomb.size() < 70000);
    CHECK(inflate(bomb, one) == "more bytes");
}

TEST_CASE("text from strangers is shown harmlessly", "[encoding]") {
    CHECK(clean("plain Größe 视频") == "plain Größe 视频");
    CHECK(clean("a\x1B[0m\n\x7F") == "a\\u001b[0m\\u000a\\u007f");
    CHECK(clean("\xC3(\xFF\xC0\x80") == "\\xc3(\\xff\\xc0\\x80");
    CHECK(clean("\xED\xA0\x80") == "\\xed\\xa0\\x80");  // a surrogate
    CHECK(clean("\xE2\x80\xAE"
                "abc") == "\\u202eabc");       // turns the direction of writing
    CHECK(clean("\xF0\x9F") == "\\xf0\\x9f");  // cut short
    CHECK(clean(std::string(80, 'x')) == std::string(80, 'x'));
    CHECK(clean(std::string(81, 'x')) == std::string(77, 'x') + "...");
    CHECK(clean(std::string(1000, '\n')).size() <= 80);
    const Place layers("layers");
    const Place layer = layers.at(3);
    CHECK(layer.key("id").str() == "layers[3].id");
}
