// Profiles, captures and run logs on disk for the viewer's tests.
#pragma once

#include <fstream>
#include <string>

#include "document/document.h"
#include "profile_samples.h"

namespace samples {

// Three layers of two heads on 4 x 8 x 10 tokens: five tiles of 64 a side.
inline paro::Profile grid_profile(std::size_t groups = 2) {
    const paro::Grid grid{4, 8, 10};
    return profile(grid, 3, 2, groups, paro::Bins::even(grid));
}

// Rows of a softmax that falls with the distance of key and query; f16 by rounding down.
inline paro::CaptureTensor falling_rows(const paro::Grid& grid, const std::vector<std::int32_t>& queries) {
    paro::CaptureTensor out{"F16", {static_cast<std::int64_t>(queries.size()), grid.size()}, {}};
    for (const std::int32_t query : queries) {
        for (std::int64_t key = 0; key < grid.size(); ++key) {
            const auto distance = static_cast<int>(std::abs(key - query));
            const int exponent = std::max(1, 14 - distance / 8);  // 2^-1 and less
            const auto bits = static_cast<std::uint16_t>(exponent << 10);
            out.bytes.push_back(static_cast<std::uint8_t>(bits & 255));
            out.bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
        }
    }
    return out;
}

inline paro::CaptureTensor tokens(const std::vector<std::int32_t>& queries) {
    paro::CaptureTensor out{"I32", {static_cast<std::int64_t>(queries.size())}, {}};
    for (const std::int32_t query : queries) {
        for (int shift = 0; shift < 32; shift += 8) out.bytes.push_back(static_cast<std::uint8_t>(query >> shift));
    }
    return out;
}

// grid_profile with exact rows of head 1 of the first layer.
inline paro::Capture grid_capture() {
    paro::Capture capture{grid_profile(), {}};
    const std::vector<std::int32_t> queries = {319, 5, 100};
    capture.tensors["rows/block.0.0/1/0"] = falling_rows({4, 8, 10}, queries);
    capture.tensors["queries/block.0.0/1/0"] = tokens(queries);
    return capture;
}

inline void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
}

// A dense run of 20 steps and a sparse one after it, as the package writes them.
inline std::string run_log(const std::string& fingerprint) {
    std::string out = R"({"run":true,"family":"wan21","fingerprint":")" + fingerprint + "\"}\n";
    out += R"({"step":0,"sigma":1.0,"layer":"block.0.0","heads":[0,1],"path":"dense","reason":"","density":1.0,)"
           R"("retained":1.0,"error":null})"
           "\n";
    out += R"({"end":true,"ok":true,"seconds":20.0,"attention_seconds":10.0,"density":1.0,"density_total":1.0,)"
           R"("retained":1.0,"precision":"dense","tail":false,"block_q":64,"block_kv":64,"steps":20,"grid":[4,8,10],)"
           R"("profile":"","paths":{"dense":100},"reasons":{}})"
           "\n";
    out += R"({"run":true,"family":"wan21","fingerprint":")" + fingerprint + "\"}\n";
    for (const char* layer : {"block.0.0", "block.1.0"}) {
        for (int step = 0; step < 2; ++step) {
            const bool sparse = step == 1 && std::string(layer) == "block.0.0";
            out += R"({"step":)" + std::to_string(step) + R"(,"sigma":0.5,"layer":")" + layer +
                   R"(","heads":[0,1],"path":")" + (sparse ? "sparse" : "fallback") + R"(","reason":")" +
                   (sparse ? "" : "output was not finite") + R"(","density":0.3,"retained":0.8,"error":)" +
                   (sparse ? R"(0.25,"head_retained":[0.75,0.5],"head_error":[0.2,0.3])" : "null") + "}\n";
        }
    }
    out += R"({"end":true,"ok":true,"seconds":9.0,"attention_seconds":4.0,"density":0.3,"density_total":0.3,)"
           R"("retained":0.8,"precision":"int8","tail":true,"block_q":64,"block_kv":64,"steps":20,"grid":[4,8,10],)"
           R"("profile":"x","paths":{"dense":20,"sparse":80},"reasons":{"output was not finite":3}})"
           "\n";
    return out;
}

// A document of NAME.json, its capture and run log, all of it computed.
struct Opened {
    Folder folder;
    paro::viewer::Workers workers{2};
    paro::viewer::Document document{workers};
    std::filesystem::path profile = folder / "wan.json";

    explicit Opened(bool with_capture = true, bool with_log = true) {
        const paro::Capture capture = grid_capture();
        save_profile(capture.profile, profile);
        if (with_capture) save_capture(capture, folder / "wan.capture.safetensors");
        if (with_log) write(folder / "runlog.jsonl", run_log(capture.profile.model.fingerprint));
        document.open(profile);
        settle();
    }
    void settle() {
        if (!workers.drain(60.0)) throw std::runtime_error("the workers did not finish in a minute");
    }
    // Time passes: the document looks at its files more than once.
    void look(double& now) {
        for (int i = 0; i < 4; ++i) {
            document.update(now += 1.0);
            settle();
        }
    }
    bool told(const std::string& part) const {
        for (const auto& message : document.messages()) {
            if (message.text.find(part) != std::string::npos) return true;
        }
        return false;
    }
};

}  // namespace samples
