// Which attention kernel a call takes, and why not another.
#include "attention_instances.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::cuda {
namespace {

std::string capability_text(int capability) {
    return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

}  // namespace

std::string portable_refuses(const AttentionParams&, int capability) {
    return capability < 80 ? capability_text(capability) + " is below 8.0" : "";
}

std::string hopper_refuses(const AttentionParams& p, int capability) {
    if (p.precision != Precision::int8) return "precision is not int8";
    return capability == 90 ? "" : capability_text(capability) + " is not 9.0";
}

Path choose_path(const AttentionParams& p, Path path, int capability) {
    const std::string hopper = path == Path::portable ? "not asked for" : hopper_refuses(p, capability);
    if (path == Path::hopper) require(hopper.empty(), "path", "must fit the call and the GPU", "hopper: " + hopper);
    if (hopper.empty()) return Path::hopper;
    const std::string portable = portable_refuses(p, capability);
    require(portable.empty(), "device", "must be a GPU of compute capability 8.0 or newer", portable);
    return Path::portable;
}

void launch_attention_portable_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? attention_portable_int8<128>(p, stream) : attention_portable_int8<64>(p, stream);
}

void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? attention_hopper_int8<128>(p, stream) : attention_hopper_int8<64>(p, stream);
}

void launch_attention_portable_bf16(const AttentionParams& p, cudaStream_t stream) {
    require(p.dtype != DType::f32, "dtype", "must be f16 or bf16 without quantisation", "f32");
    p.head_dim == 128 ? attention_portable_bf16<128>(p, stream) : attention_portable_bf16<64>(p, stream);
}

void launch_attention(const AttentionParams& p, Path path, cudaStream_t stream) {
    if (p.precision == Precision::bf16) return launch_attention_portable_bf16(p, stream);
    path == Path::hopper ? launch_attention_hopper_int8(p, stream) : launch_attention_portable_int8(p, stream);
}

}  // namespace paro::cuda
