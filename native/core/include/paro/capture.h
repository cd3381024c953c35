// Captures: exact rows and block maps of chosen heads for the viewer. Safetensors with metadata "paro-capture/1".
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "paro/profile.h"

namespace paro {

// One tensor of a safetensors file, row-major.
struct CaptureTensor {
    std::string dtype;  // F16 I32 U8
    std::vector<std::int64_t> shape;
    std::vector<std::uint8_t> bytes;
    friend bool operator==(const CaptureTensor&, const CaptureTensor&) = default;
};

// Keys: rows/<layer id>/<head>/<group> (F16 [queries, keys], original order), queries/... (I32 [queries]),
// maps/<layer id>/<head>/<group>/<order> (U8 log2 block map, at most 512 x 512). Rows and queries come in pairs; rows
// are probabilities, and have as many keys as one of the profile's calibrated grids.
struct Capture {
    Profile profile;
    std::map<std::string, CaptureTensor> tensors;
    friend bool operator==(const Capture&, const Capture&) = default;
};

// Refuses wrong headers, offsets that overlap, leave gaps or exceed the file, unknown keys and dtypes, sizes that do
// not multiply up (checked multiplication), a header beyond 100 MB, a file beyond 8 GiB. Errors name file and place.
// progress: called on this thread with the share of tensor bytes read so far.
Capture load_capture(const std::filesystem::path& path, const std::function<void(double)>& progress = {});
void save_capture(const Capture& capture, const std::filesystem::path& path);

}  // namespace paro
