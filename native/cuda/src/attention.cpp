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

Path choose_path(const AttentionParams& p, Path path, int capability) {
    const bool int8 = p.precision == Precision::int8;
    if (path == Path::hopper) {
        require(int8, "path", "must be auto or portable where precision is not int8", "hopper");
        require(capability == 90, "path", "must be auto or portable on a GPU of " + capability_text(capability),
                "hopper");
    }
    if (path != Path::portable && int8 && capability == 90) return Path::hopper;
    require(capability >= 80, "device", "must be a GPU of compute capability 8.0 or newer",
            capability_text(capability));
    return Path::portable;
}

void launch_attention_portable_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? attention_portable_int8<128>(p, stream) : attention_portable_int8<64>(p, stream);
}

void launch_attention_hopper_int8(const AttentionParams& p, cudaStream_t stream) {
    p.head_dim == 128 ? attention_hopper_int8<128>(p, stream) : attention_hopper_int8<64>(p, stream);
}

void launch_attention_portable_bf16(const AttentionParams& p, cudaStream_t stream) {
    require(p.dtype != DType::f32, "dtype", "must be float16 or bfloat16 where precision is bf16", "float32");
    p.head_dim == 128 ? attention_portable_bf16<128>(p, stream) : attention_portable_bf16<64>(p, stream);
}

void launch_attention(const AttentionParams& p, Path path, cudaStream_t stream) {
    if (p.precision == Precision::bf16) return launch_attention_portable_bf16(p, stream);
    path == Path::hopper ? launch_attention_hopper_int8(p, stream) : launch_attention_portable_int8(p, stream);
}

}  // namespace paro::cuda
