// torch.ops.paro.*: checks tensors, allocates through torch's allocator, launches on the current stream. LibTorch's
// stable ABI only, so that one binary serves torch 2.9 and everything newer.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

#include "device.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

namespace paro::torch_ops {
namespace {

using cuda::AttentionParams;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The layout and tile of a plan, as every operator takes them after its tensors.
struct Layout {
    std::int64_t prefix, f, h, w, suffix, block_q, block_kv;
};

std::int32_t dtype_of(const Tensor& x) {
    std::int32_t dtype = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
    return dtype;
}

cuda::DType to_dtype(const char* name, std::int32_t dtype) {
    if (dtype == aoti_torch_dtype_float32()) return cuda::DType::f32;
    if (dtype == aoti_torch_dtype_float16()) return cuda::DType::f16;
    require(dtype == aoti_torch_dtype_bfloat16(), name, "must be float32, float16 or bfloat16",
            "torch's dtype number " + std::to_string(dtype));
    return cuda::DType::bf16;
}

ScalarType to_scalar_type(cuda::DType dtype) {
    if (dtype == cuda::DType::f32) return ScalarType::Float;
    return dtype == cuda::DType::f16 ? ScalarType::Half : ScalarType::BFloat16;
}

std::string text(const Tensor& x) {
    std::string result = "(";
    for (std::int64_t i = 0; i < x.dim(); ++i) result += (i ? ", " : "") + std::to_string(x.size(i));
    return result + ")";
}

// Order of checks: device, rank, dtype, shape, strides.
void check_device(const char* name, const Tensor& x, std::int32_t device) {
    require(x.is_cuda(), name, "must be on a CUDA device", "another device");
    require(x.get_device_index() == device, name,
            "must be on the device of the first tensor, " + std::to_string(device), x.get_device_index());
}

void check_strides(const char* name, const Tensor& x) {
    const auto bytes = static_cast<std::int64_t>(x.element_size());
    require(x.stride(3) == 1, std::string(name) + ".stride(3)", "must be 1", x.stride(3));
    for (std::int64_t i = 0; i < 3; ++i) {
        require(x.size(i) == 1 || x.stride(i) * bytes % 16 == 0,
                std::string(name) + ".stride(" + std::to_string(i) + ")", "must be a multiple of 16 bytes",
                x.stride(i) * bytes);
    }
    require(reinterpret_cast<std::uintptr_t>(x.data_ptr()) % 16 == 0, std::string(name) + ".data_ptr()",
            "must be a multiple of 16", x.data_ptr());
}

void check_tensor(const char* name, const Tensor& x, const Tensor& like) {
    check_device(name, x, like.get_device_index());
    require(x.dim() == 4, name, "must have the shape (B, H, N, D)", text(x));
    require(dtype_of(x) == dtype_of(like), name, "must have the dtype of the first tensor", dtype_of(x));
    for (std::int64_t i = 0; i < 4; ++i) {
        require(x.size(i) == like.size(i), name, "must have the shape of the first tensor, " + text(like), text(x));
    }
    check_strides(name, x);
}

cuda::TensorParams view(const Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

std::int32_t to_int(const char* name, std::int64_t value) {
    require(value >= 0 && value <= 0x7fffffff, name, "must be 0 to 2^31 - 1", value);
    return static_cast<std::int32_t>(value);
}

void set_layout(AttentionParams& p, const Layout& layout) {
    cuda::set_sizes(p, {to_int("prefix", layout.prefix),
                        {to_int("grid_f", layout.f), to_int("grid_h", layout.h), to_int("grid_w", layout.w)},
                        to_int("suffix", layout.suffix),
                        to_int("block_q", layout.block_q),
                        to_int("block_kv", layout.block_kv)});
}

void set_plan(AttentionParams& p, const Tensor& plan, std::int32_t device) {
    check_device("plan", plan, device);
    const std::int64_t words = cuda::plan_words(p);
    const bool fits =
        plan.dim() == 1 && plan.numel() == words && plan.is_contiguous() && dtype_of(plan) == aoti_torch_dtype_int32();
    require(fits, "plan", "must be a contiguous int32 tensor of " + std::to_string(words) + " words for these sizes",
            text(plan));
    cuda::place_plan(p, plan.data_ptr());
}

// What follows from one of q, k, v.
AttentionParams make_params(const char* name, const Tensor& x, const Tensor& plan, const Layout& layout,
                            double sm_scale, std::int64_t precision, bool tail) {
    require(x.is_cuda(), name, "must be on a CUDA device", "another device");
    check_tensor(name, x, x);
    AttentionParams p{};
    p.dtype = to_dtype(name, dtype_of(x));
    p.batch = to_int("batch", x.size(0));
    p.heads = to_int("heads", x.size(1));
    p.head_dim = to_int("head_dim", x.size(3));
    p.sm_scale = static_cast<float>(sm_scale);
    p.precision = static_cast<cuda::Precision>(precision);
    p.tail = tail;
    set_layout(p, layout);
    require(x.size(2) == p.layout.length(), name,
            "must hold the plan's " + std::to_string(p.layout.length()) + " tokens", x.size(2));
    set_plan(p, plan, x.get_device_index());
    return p;
}

Tensor allocate(const Tensor& like, std::size_t bytes) {
    const std::array<std::int64_t, 1> size = {static_cast<std::int64_t>(bytes)};
    return torch::stable::new_empty(like, {size.data(), size.size()}, ScalarType::Byte);
}

// (B, H, N, D), a view of contiguous (B, N, H, D).
Tensor allocate_output(const Tensor& like, AttentionParams& p) {
    const std::array<std::int64_t, 4> size = {p.batch, p.layout.length(), p.heads, p.head_dim};
    const Tensor o = torch::stable::new_empty(like, {size.data(), size.size()}, to_scalar_type(p.dtype));
    p.o = {o.data_ptr(), o.stride(0), o.stride(2), o.stride(1)};
    return torch::stable::transpose(o, 1, 2);
}

void check_scratch(const char* name, const Tensor& x, std::size_t bytes, std::int32_t device) {
    check_device(name, x, device);
    const bool fits = x.dim() == 1 && x.numel() == static_cast<std::int64_t>(bytes) && x.is_contiguous() &&
                      dtype_of(x) == aoti_torch_dtype_uint8();
    require(fits, name, "must be what packing returned for these sizes, " + std::to_string(bytes) + " bytes", text(x));
}

// What crosses the library's edge is std::runtime_error: pybind11 modules share their translators of exceptions, and
// one that knows a type of the same name from another library must not meet ours.
template <class Call>
Tensor at_edge(Call call) {
    std::string what;
    try {
        return call();
    } catch (const std::exception& error) {
        what = error.what();
    }
    throw std::runtime_error(what);
}

}  // namespace

// o = softmax(q k^T sm_scale) v over the plan's blocks; see paroattention/cuda.py for the arguments.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& plan, std::int64_t prefix,
                 std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q,
                 std::int64_t block_kv, double sm_scale, std::int64_t precision, bool tail, std::int64_t path) {
    return at_edge([&] {
        AttentionParams p =
            make_params("q", q, plan, {prefix, f, h, w, suffix, block_q, block_kv}, sm_scale, precision, tail);
        check_tensor("k", k, q);
        check_tensor("v", v, q);
        p.q = view(q), p.k = view(k), p.v = view(v);
        const DeviceScope scope(q.get_device_index());
        const cuda::Path chosen = cuda::choose_path(p, static_cast<cuda::Path>(path), scope.capability());
        const std::size_t query_bytes = cuda::query_bytes(p);
        const Tensor scratch = allocate(q, query_bytes + cuda::key_bytes(p));
        const Tensor o = allocate_output(q, p);
        cuda::place_queries(p, scratch.data_ptr());
        cuda::place_keys(p, static_cast<std::byte*>(scratch.data_ptr()) + query_bytes);
        if (p.precision == cuda::Precision::int8) cuda::launch_pack_int8(p, scope.stream());
        cuda::launch_attention(p, chosen, scope.stream());
        return o;
    });
}

// The three parts of an int8 call, so that q, k and v can be let go once they are packed.
Tensor pack_queries(const Tensor& q, const Tensor& plan, std::int64_t prefix, std::int64_t f, std::int64_t h,
                    std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv, double sm_scale) {
    return at_edge([&] {
        AttentionParams p = make_params("q", q, plan, {prefix, f, h, w, suffix, block_q, block_kv}, sm_scale, 0, false);
        p.q = view(q);
        const DeviceScope scope(q.get_device_index());
        cuda::choose_path(p, cuda::Path::portable, scope.capability());
        const Tensor scratch = allocate(q, cuda::query_bytes(p));
        cuda::place_queries(p, scratch.data_ptr());
        cuda::launch_pack_queries_int8(p, scope.stream());
        return scratch;
    });
}

Tensor pack_keys(const Tensor& k, const Tensor& v, const Tensor& plan, std::int64_t prefix, std::int64_t f,
                 std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv,
                 bool tail) {
    return at_edge([&] {
        AttentionParams p = make_params("k", k, plan, {prefix, f, h, w, suffix, block_q, block_kv}, 1.0, 0, tail);
        check_tensor("v", v, k);
        p.k = view(k), p.v = view(v);
        const DeviceScope scope(k.get_device_index());
        cuda::choose_path(p, cuda::Path::portable, scope.capability());
        const Tensor scratch = allocate(k, cuda::key_bytes(p));
        cuda::place_keys(p, scratch.data_ptr());
        cuda::launch_pack_keys_int8(p, scope.stream());
        return scratch;
    });
}

// dtype of the result: 0 float32, 1 float16, 2 bfloat16.
Tensor attention_packed(const Tensor& queries, const Tensor& keys, const Tensor& plan, std::int64_t batch,
                        std::int64_t heads, std::int64_t head_dim, std::int64_t prefix, std::int64_t f, std::int64_t h,
                        std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv,
                        std::int64_t dtype, bool tail, std::int64_t path) {
    return at_edge([&] {
        require(dtype >= 0 && dtype <= 2, "dtype", "must be 0, 1 or 2", dtype);
        AttentionParams p{};
        p.dtype = static_cast<cuda::DType>(dtype);
        p.batch = to_int("batch", batch);
        p.heads = to_int("heads", heads);
        p.head_dim = to_int("head_dim", head_dim);
        p.sm_scale = 1.0f;  // already in the queries' scales
        p.tail = tail;
        set_layout(p, {prefix, f, h, w, suffix, block_q, block_kv});
        require(queries.is_cuda(), "queries", "must be on a CUDA device", "another device");
        const std::int32_t device = queries.get_device_index();
        check_scratch("queries", queries, cuda::query_bytes(p), device);
        check_scratch("keys", keys, cuda::key_bytes(p), device);
        set_plan(p, plan, device);
        const DeviceScope scope(device);
        const cuda::Path chosen = cuda::choose_path(p, static_cast<cuda::Path>(path), scope.capability());
        const Tensor o = allocate_output(queries, p);
        cuda::place_queries(p, queries.data_ptr());
        cuda::place_keys(p, keys.data_ptr());
        cuda::launch_attention(p, chosen, scope.stream());
        return o;
    });
}

}  // namespace paro::torch_ops

#define PARO_LAYOUT "int prefix, int grid_f, int grid_h, int grid_w, int suffix, int block_q, int block_kv"

STABLE_TORCH_LIBRARY(paro, m) {
    m.def("attention(Tensor q, Tensor k, Tensor v, Tensor plan, " PARO_LAYOUT
          ", float sm_scale, int precision, bool tail, int path) -> Tensor");
    m.def("pack_queries(Tensor q, Tensor plan, " PARO_LAYOUT ", float sm_scale) -> Tensor");
    m.def("pack_keys(Tensor k, Tensor v, Tensor plan, " PARO_LAYOUT ", bool tail) -> Tensor");
    m.def("attention_packed(Tensor queries, Tensor keys, Tensor plan, int batch, int heads, int head_dim, " PARO_LAYOUT
          ", int dtype, bool tail, int path) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(paro, CUDA, m) {
    m.impl("attention", TORCH_BOX(&paro::torch_ops::attention));
    m.impl("pack_queries", TORCH_BOX(&paro::torch_ops::pack_queries));
    m.impl("pack_keys", TORCH_BOX(&paro::torch_ops::pack_keys));
    m.impl("attention_packed", TORCH_BOX(&paro::torch_ops::attention_packed));
}
