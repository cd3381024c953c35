// Hostile files made of tests/hostile/table.json, whose README lists the steps. The Python tests read the same table.
#pragma once

#include <malloc.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace hostile {

using Json = nlohmann::json;

inline const Json& table() {
    static const Json read = [] {
        std::ifstream file(PARO_HOSTILE_TABLE);
        return Json::parse(file);
    }();
    return read;
}

inline std::string bytes_of(const std::string& hex) {
    std::string out;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return out;
}

inline std::string times(const std::string& piece, std::size_t count) {
    std::string out;
    out.reserve(piece.size() * count);
    for (std::size_t i = 0; i < count; ++i) out += piece;
    return out;
}

inline std::string exchanged(std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::logic_error("the sample does not hold " + from);
    return text.replace(at, from.size(), to);
}

inline std::string with_text_steps(std::string text, const Json& steps) {
    for (const Json& step : steps) {
        const std::string name = step[0];
        if (name == "replace") text = exchanged(text, step[1], step[2]);
        if (name == "repeat") text = exchanged(text, step[1], times(step[2], step[3]));
        if (name == "piece") text = exchanged(text, step[1], table()["pieces"][step[2].get<std::string>()]);
        if (name == "hex_in") text = exchanged(text, step[1], bytes_of(step[2]));
        if (name == "whole" || name == "header") text = step[1];
        if (name == "pad") text += times(step[1], step[2]);
    }
    return text;
}

// ASCII in an encoding of 2 or 4 bytes.
inline std::string wide(const std::string& text, const std::string& codec) {
    const std::size_t width = codec.starts_with("utf-16") ? 2 : 4;
    std::string out;
    for (const char c : text) {
        const std::string zeros(width - 1, '\0');
        out += codec.ends_with("le") ? c + zeros : zeros + c;
    }
    return out;
}

inline std::string with_byte_steps(std::string whole, const Json& steps) {
    for (const Json& step : steps) {
        const std::string name = step[0];
        if (name == "keep") whole.resize(std::min(whole.size(), step[1].get<std::size_t>()));
        if (name == "drop") whole.resize(whole.size() - step[1].get<std::size_t>());
        if (name == "append") whole += step[1].get<std::string>();
        if (name == "hex") whole = bytes_of(step[1]);
        if (name == "wide") whole = bytes_of(step[2]) + wide(whole, step[1]);
        if (name == "size") whole.replace(0, 8, bytes_of(step[1]));
    }
    return whole;
}

inline std::string contents(const Json& one) {
    const Json& samples = table()["samples"];
    const Json steps = one.value("steps", Json::array());
    if (one["file"] != "capture") {
        const std::string sample = samples[one["file"] == "profile" ? "profile" : "run_log"];
        return with_byte_steps(with_text_steps(sample, steps), steps);
    }
    std::string header = with_text_steps(samples["header"], steps);
    const std::string inner = samples["profile"].dump();
    if (header.find("@profile") != header.npos) {
        header = exchanged(header, "@profile", inner.substr(1, inner.size() - 2));
    }
    std::string whole, data = samples["data"];
    for (const Json& step : steps) {
        if (step[0] == "data") data = step[1];
    }
    for (int i = 0; i < 8; ++i) whole += static_cast<char>(std::uint64_t{header.size()} >> (8 * i));
    return with_byte_steps(whole + header + bytes_of(data), steps);
}

inline void make_socket(const std::filesystem::path& path) {
    const int handle = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.string().copy(address.sun_path, sizeof address.sun_path - 1);
    const bool bound = ::bind(handle, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(handle);
    if (!bound) throw std::runtime_error("no socket at " + path.string());
}

// The case's file in `folder`, or the path that stands for it.
inline std::filesystem::path make(const Json& one, const std::filesystem::path& folder) {
    const std::string kind = one.value("kind", "file"), file = one["file"];
    const std::string end = file == "profile" ? ".json" : file == "capture" ? ".safetensors" : ".jsonl";
    const std::filesystem::path path = folder / ("hostile" + end);
    if (kind.starts_with("path:")) return kind.substr(5);
    if (kind.starts_with("name:")) return folder / kind.substr(5);
    if (kind == "long name") return folder / std::string(5000, 'x');
    if (kind == "fifo" && ::mkfifo(path.c_str(), 0600) != 0) throw std::runtime_error("no pipe");
    if (kind == "directory") std::filesystem::create_directory(path);
    if (kind == "dangling link") std::filesystem::create_symlink(folder / "nothing", path);
    if (kind == "link to itself") std::filesystem::create_symlink(path, path);
    if (kind == "socket") make_socket(path);
    if (kind != "file") return path;
    std::ofstream(path, std::ios::binary) << contents(one);
    for (const Json& step : one.value("steps", Json::array())) {
        if (step[0] == "grow") std::filesystem::resize_file(path, step[1].get<std::uintmax_t>());
    }
    return path;
}

// Processor time of all threads and peak memory since it was made.
class Cost {
   public:
    Cost() {
        ::malloc_trim(0);  // freed memory that was not given back would be used again unseen
        std::ofstream("/proc/self/clear_refs") << "5";
        before_ = resident("VmRSS:");
        begun_ = std::clock();
    }
    double milliseconds() const { return 1e3 * static_cast<double>(std::clock() - begun_) / CLOCKS_PER_SEC; }
    double megabytes() const { return std::max(0.0, resident("VmHWM:") - before_) / 1e6; }

   private:
    static double resident(const std::string& name) {
        std::ifstream status("/proc/self/status");
        for (std::string line; std::getline(status, line);) {
            if (line.starts_with(name)) return 1024.0 * std::stod(line.substr(name.size()));
        }
        throw std::runtime_error("/proc/self/status has no " + name);
    }
    double before_ = 0.0;
    std::clock_t begun_ = 0;
};

}  // namespace hostile
