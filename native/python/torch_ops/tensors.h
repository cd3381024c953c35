// What every operator does with its tensors: checks, in the order device, rank, dtype, shape, strides; allocation
// through torch's allocator; parameters of a launch. LibTorch's stable ABI only.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>

#include "edge.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"

#if defined(__MINGW32__)
// An optional argument comes in a box that torch has allocated and its headers delete here, with this library's
// runtime. Before any operator is boxed, since those would take the headers' conversion.
template <>
struct torch::stable::detail::ToImpl<std::optional<torch::stable::Tensor>> {
    static std::optional<torch::stable::Tensor> call(StableIValue value, std::uint64_t, bool) {
        StableIValue* const box = to<StableIValue*>(value);
        if (!box) return std::nullopt;
        const auto handle = to<AtenTensorHandle>(*box);
        paro::torch_ops::free_in_torch(box);
        return torch::stable::Tensor(handle);
    }
};
#endif

namespace paro::torch_ops {

using cuda::AttentionParams;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The layout and tile of a plan, as every operator takes them after its tensors.
struct Layout {
    std::int64_t prefix, f, h, w, suffix, block_q, block_kv;
};

inline std::int32_t dtype_of(const Tensor& x) {
    std::int32_t dtype = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
    return dtype;
}

// As Python shows it, without "torch.".
inline std::string dtype_name(std::int32_t dtype) {
    struct Named {
        std::int32_t (*dtype)();
        const char* name;
    };
    const Named known[] = {
        {aoti_torch_dtype_float32, "float32"},     {aoti_torch_dtype_float16, "float16"},
        {aoti_torch_dtype_bfloat16, "bfloat16"},   {aoti_torch_dtype_float64, "float64"},
        {aoti_torch_dtype_uint8, "uint8"},         {aoti_torch_dtype_int8, "int8"},
        {aoti_torch_dtype_int16, "int16"},         {aoti_torch_dtype_int32, "int32"},
        {aoti_torch_dtype_int64, "int64"},         {aoti_torch_dtype_bool, "bool"},
        {aoti_torch_dtype_complex64, "complex64"}, {aoti_torch_dtype_complex128, "complex128"},
    };
    for (const Named& one : known) {
        if (one.dtype() == dtype) return one.name;
    }
    return "another dtype";
}

inline cuda::DType to_dtype(const char* name, std::int32_t dtype) {
    if (dtype == aoti_torch_dtype_float32()) return cuda::DType::f32;
    if (dtype == aoti_torch_dtype_float16()) return cuda::DType::f16;
    require(dtype == aoti_torch_dtype_bfloat16(), name, "must be float32, float16 or bfloat16", dtype_name(dtype));
    return cuda::DType::bf16;
}

inline ScalarType to_scalar_type(cuda::DType dtype) {
    if (dtype == cuda::DType::f32) return ScalarType::Float;
    return dtype == cuda::DType::f16 ? ScalarType::Half : ScalarType::BFloat16;
}

inline std::string shape_of(const Tensor& x) {
    std::string result = "(";
    for (std::int64_t i = 0; i < x.dim(); ++i) result += (i ? ", " : "") + std::to_string(x.size(i));
    return result + ")";
}

inline std::string described(const Tensor& x) {
    return dtype_name(dtype_of(x)) + " " + shape_of(x) + (x.is_contiguous() ? "" : " with gaps");
}

inline void require_cuda(const char* name, const Tensor& x) {
    require(x.is_cuda(), name, "must be on a CUDA device", x.is_cpu() ? "a tensor on the CPU" : "another device");
}

// Order of checks: device, rank, dtype, shape, strides.
inline void check_device(const char* name, const Tensor& x, std::int32_t device) {
    require_cuda(name, x);
    require(x.get_device_index() == device, name,
            "must be on the device of the first tensor, cuda:" + std::to_string(device),
            "cuda:" + std::to_string(x.get_device_index()));
}

inline void check_strides(const char* name, const Tensor& x) {
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

inline void check_tensor(const char* name, const Tensor& x, const Tensor& like) {
    check_device(name, x, like.get_device_index());
    require(x.dim() == 4, name, "must have the shape (B, H, N, D)", shape_of(x));
    require(dtype_of(x) == dtype_of(like), name,
            "must have the dtype of the first tensor, " + dtype_name(dtype_of(like)), dtype_name(dtype_of(x)));
    for (std::int64_t i = 0; i < 4; ++i) {
        require(x.size(i) == like.size(i), name, "must have the shape of the first tensor, " + shape_of(like),
                shape_of(x));
    }
    check_strides(name, x);
}

inline cuda::TensorParams view(const Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

inline std::int32_t to_int(const char* name, std::int64_t value) {
    require(value >= 0 && value <= 0x7fffffff, name, "must be 0 to 2^31 - 1", value);
    return static_cast<std::int32_t>(value);
}

inline cuda::Precision to_precision(std::int64_t value) {
    require(value == 0 || value == 1, "precision", "must be 0 (int8) or 1 (bf16)", value);
    return static_cast<cuda::Precision>(value);
}

inline cuda::Path to_path(std::int64_t value) {
    require(value >= 0 && value <= 3, "path", "must be 0 (automatic), 1 (portable), 2 (hopper) or 3 (narrow)", value);
    return static_cast<cuda::Path>(value);
}

inline void set_layout(AttentionParams& p, const Layout& layout) {
    cuda::set_sizes(p, {to_int("prefix", layout.prefix),
                        {to_int("grid_f", layout.f), to_int("grid_h", layout.h), to_int("grid_w", layout.w)},
                        to_int("suffix", layout.suffix),
                        to_int("block_q", layout.block_q),
                        to_int("block_kv", layout.block_kv)});
}

// The same, for a tensor that must be as long as the layout.
inline void set_layout(AttentionParams& p, const Layout& layout, const char* name, const Tensor& x) {
    set_layout(p, layout);
    require(x.size(2) == p.layout.length(), name,
            "must hold the layout's " + std::to_string(p.layout.length()) + " tokens", x.size(2));
}

inline void set_plan(AttentionParams& p, const Tensor& plan, std::int32_t device) {
    check_device("plan", plan, device);
    const std::int64_t words = cuda::plan_layout(p).count();
    const bool fits =
        plan.dim() == 1 && plan.numel() == words && plan.is_contiguous() && dtype_of(plan) == aoti_torch_dtype_int32();
    require(fits, "plan", "must be a contiguous int32 tensor of " + std::to_string(words) + " words for these sizes",
            described(plan));
    cuda::place_plan(p, plan.data_ptr());
}

// What follows from one of q, k, v but for layout and plan.
inline AttentionParams make_params(const char* name, const Tensor& x, double sm_scale) {
    require_cuda(name, x);
    check_tensor(name, x, x);
    AttentionParams p{};
    p.dtype = to_dtype(name, dtype_of(x));
    p.batch = to_int("batch", x.size(0));
    p.heads = to_int("heads", x.size(1));
    p.head_dim = to_int("head_dim", x.size(3));
    p.sm_scale = static_cast<float>(sm_scale);
    return p;
}

// The same with layout and plan.
inline AttentionParams make_params(const char* name, const Tensor& x, const Tensor& plan, const Layout& layout,
                                   double sm_scale, std::int64_t precision, bool tail) {
    AttentionParams p = make_params(name, x, sm_scale);
    p.precision = to_precision(precision);
    p.tail = tail;
    set_layout(p, layout, name, x);
    set_plan(p, plan, x.get_device_index());
    return p;
}

// Uninitialised, on the device of `like`. torch's allocator hands on that it failed, not why: a size that it could not
// give is what is left, once shapes have been checked.
template <std::size_t rank>
Tensor new_tensor(const Tensor& like, const std::array<std::int64_t, rank>& size, ScalarType dtype) {
    try {
        return torch::stable::new_empty(like, {size.data(), size.size()}, dtype);
    } catch (const std::exception&) {
        std::int64_t count = 1;
        for (const std::int64_t side : size) count *= side;
        throw OutOfMemory("no memory on the device for a tensor of " + std::to_string(count) + " elements");
    }
}

inline Tensor allocate(const Tensor& like, std::size_t bytes) {
    return new_tensor<1>(like, {static_cast<std::int64_t>(bytes)}, ScalarType::Byte);
}

}  // namespace paro::torch_ops

#define PARO_LAYOUT "int prefix, int grid_f, int grid_h, int grid_w, int suffix, int block_q, int block_kv"
