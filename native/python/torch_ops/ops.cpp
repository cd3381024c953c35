// torch.ops.paro.*: checks tensors, allocates through torch's allocator, launches on the current stream. LibTorch's
// stable ABI only, so that one binary serves torch 2.9 and everything newer.
#include <array>
#include <cstdint>
#include <string>

#include "device.h"
#include "paro/cuda/launch.h"
#include "paro/error.h"
#include "tensors.h"

namespace paro::torch_ops {
namespace {

// (B, H, N, D), a view of contiguous (B, N, H, D).
Tensor allocate_output(const Tensor& like, AttentionParams& p) {
    const std::array<std::int64_t, 4> size = {p.batch, p.layout.length(), p.heads, p.head_dim};
    const Tensor o = new_tensor(like, size, to_scalar_type(p.dtype));
    p.o = {o.data_ptr(), o.stride(0), o.stride(2), o.stride(1)};
    return torch::stable::transpose(o, 1, 2);
}

void check_scratch(const char* name, const Tensor& x, std::size_t bytes, std::int32_t device) {
    check_device(name, x, device);
    const bool fits = x.dim() == 1 && x.numel() == static_cast<std::int64_t>(bytes) && x.is_contiguous() &&
                      dtype_of(x) == aoti_torch_dtype_uint8();
    require(fits, name, "must be what packing returned for these sizes, uint8 (" + std::to_string(bytes) + ")",
            described(x));
}

// Where the kernels tell that o was not finite; null where nobody asks.
std::int32_t* broken_word(const Tensor* broken, std::int32_t device) {
    if (!broken) return nullptr;
    check_device("broken", *broken, device);
    require(dtype_of(*broken) == aoti_torch_dtype_int32() && broken->numel() == 1, "broken",
            "must be an int32 tensor of one element", described(*broken));
    return static_cast<std::int32_t*>(broken->data_ptr());
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& plan, const Layout& layout,
              double sm_scale, std::int64_t precision, bool tail, std::int64_t path, const Tensor* broken) {
    AttentionParams p = make_params("q", q, plan, layout, sm_scale, precision, tail);
    check_tensor("k", k, q);
    check_tensor("v", v, q);
    p.q = view(q), p.k = view(k), p.v = view(v);
    p.broken = broken_word(broken, q.get_device_index());
    const DeviceScope scope(q.get_device_index());
    const cuda::Path chosen = cuda::choose_path(p, to_path(path), scope.capability());
    const std::size_t query_bytes = cuda::query_bytes(p);
    const Tensor scratch = allocate(q, query_bytes + cuda::key_bytes(p));
    const Tensor o = allocate_output(q, p);
    cuda::place_queries(p, scratch.data_ptr());
    cuda::place_keys(p, static_cast<std::byte*>(scratch.data_ptr()) + query_bytes);
    if (p.precision == cuda::Precision::int8) cuda::launch_pack_int8(p, scope.stream());
    cuda::launch_attention(p, chosen, scope.stream());
    return o;
}

// dtype of the result: 0 float32, 1 float16, 2 bfloat16.
Tensor attend_packed(const Tensor& queries, const Tensor& keys, const Tensor& plan, std::int64_t batch,
                     std::int64_t heads, std::int64_t head_dim, const Layout& layout, std::int64_t dtype, bool tail,
                     std::int64_t path, const Tensor* broken) {
    require(dtype >= 0 && dtype <= 2, "dtype", "must be 0 (float32), 1 (float16) or 2 (bfloat16)", dtype);
    AttentionParams p{};
    p.dtype = static_cast<cuda::DType>(dtype);
    p.batch = to_int("batch", batch);
    p.heads = to_int("heads", heads);
    p.head_dim = to_int("head_dim", head_dim);
    p.sm_scale = 1.0f;  // already in the queries' scales
    p.tail = tail;
    set_layout(p, layout);
    require_cuda("queries", queries);
    const std::int32_t device = queries.get_device_index();
    check_scratch("queries", queries, cuda::query_bytes(p), device);
    check_scratch("keys", keys, cuda::key_bytes(p), device);
    set_plan(p, plan, device);
    p.broken = broken_word(broken, device);
    const DeviceScope scope(device);
    const cuda::Path chosen = cuda::choose_path(p, to_path(path), scope.capability());
    const Tensor o = allocate_output(queries, p);
    cuda::place_queries(p, queries.data_ptr());
    cuda::place_keys(p, keys.data_ptr());
    cuda::launch_attention(p, chosen, scope.stream());
    return o;
}

}  // namespace

// o = softmax(q k^T sm_scale) v over the plan's blocks; see paroattention/kernels/cuda.py for the arguments.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& plan, std::int64_t prefix,
                 std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q,
                 std::int64_t block_kv, double sm_scale, std::int64_t precision, bool tail, std::int64_t path) {
    return attend(q, k, v, plan, {prefix, f, h, w, suffix, block_q, block_kv}, sm_scale, precision, tail, path,
                  nullptr);
}

// An overload and no optional argument: torch.compile cannot lower one that is written to and not given.
Tensor attention_broken(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& plan, std::int64_t prefix,
                        std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q,
                        std::int64_t block_kv, double sm_scale, std::int64_t precision, bool tail, std::int64_t path,
                        const Tensor& broken) {
    return attend(q, k, v, plan, {prefix, f, h, w, suffix, block_q, block_kv}, sm_scale, precision, tail, path,
                  &broken);
}

// The three parts of an int8 call, so that q, k and v can be let go once they are packed.
Tensor pack_queries(const Tensor& q, const Tensor& plan, std::int64_t prefix, std::int64_t f, std::int64_t h,
                    std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv, double sm_scale) {
    AttentionParams p = make_params("q", q, plan, {prefix, f, h, w, suffix, block_q, block_kv}, sm_scale, 0, false);
    p.q = view(q);
    const DeviceScope scope(q.get_device_index());
    cuda::choose_path(p, cuda::Path::portable, scope.capability());
    const Tensor scratch = allocate(q, cuda::query_bytes(p));
    cuda::place_queries(p, scratch.data_ptr());
    cuda::launch_pack_queries_int8(p, scope.stream());
    return scratch;
}

Tensor pack_keys(const Tensor& k, const Tensor& v, const Tensor& plan, std::int64_t prefix, std::int64_t f,
                 std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv,
                 bool tail) {
    AttentionParams p = make_params("k", k, plan, {prefix, f, h, w, suffix, block_q, block_kv}, 1.0, 0, tail);
    check_tensor("v", v, k);
    p.k = view(k), p.v = view(v);
    const DeviceScope scope(k.get_device_index());
    cuda::choose_path(p, cuda::Path::portable, scope.capability());
    const Tensor scratch = allocate(k, cuda::key_bytes(p));
    cuda::place_keys(p, scratch.data_ptr());
    cuda::launch_pack_keys_int8(p, scope.stream());
    return scratch;
}

Tensor attention_packed(const Tensor& queries, const Tensor& keys, const Tensor& plan, std::int64_t batch,
                        std::int64_t heads, std::int64_t head_dim, std::int64_t prefix, std::int64_t f, std::int64_t h,
                        std::int64_t w, std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv,
                        std::int64_t dtype, bool tail, std::int64_t path) {
    return attend_packed(queries, keys, plan, batch, heads, head_dim, {prefix, f, h, w, suffix, block_q, block_kv},
                         dtype, tail, path, nullptr);
}

Tensor attention_packed_broken(const Tensor& queries, const Tensor& keys, const Tensor& plan, std::int64_t batch,
                               std::int64_t heads, std::int64_t head_dim, std::int64_t prefix, std::int64_t f,
                               std::int64_t h, std::int64_t w, std::int64_t suffix, std::int64_t block_q,
                               std::int64_t block_kv, std::int64_t dtype, bool tail, std::int64_t path,
                               const Tensor& broken) {
    return attend_packed(queries, keys, plan, batch, heads, head_dim, {prefix, f, h, w, suffix, block_q, block_kv},
                         dtype, tail, path, &broken);
}

std::span<const Operator> attention_operators() {
    static constexpr Operator operators[] = {
        {"attention(Tensor q, Tensor k, Tensor v, Tensor plan, " PARO_LAYOUT
         ", float sm_scale, int precision, bool tail, int path) -> Tensor",
         PARO_BOX(attention)},
        {"attention.broken(Tensor q, Tensor k, Tensor v, Tensor plan, " PARO_LAYOUT
         ", float sm_scale, int precision, bool tail, int path, Tensor(a!) broken) -> Tensor",
         PARO_BOX(attention_broken)},
        {"pack_queries(Tensor q, Tensor plan, " PARO_LAYOUT ", float sm_scale) -> Tensor", PARO_BOX(pack_queries)},
        {"pack_keys(Tensor k, Tensor v, Tensor plan, " PARO_LAYOUT ", bool tail) -> Tensor", PARO_BOX(pack_keys)},
        {"attention_packed(Tensor queries, Tensor keys, Tensor plan, int batch, int heads, int head_dim, " PARO_LAYOUT
         ", int dtype, bool tail, int path) -> Tensor",
         PARO_BOX(attention_packed)},
        {"attention_packed.broken(Tensor queries, Tensor keys, Tensor plan, int batch, int heads, int "
         "head_dim, " PARO_LAYOUT ", int dtype, bool tail, int path, Tensor(a!) broken) -> Tensor",
         PARO_BOX(attention_packed_broken)},
    };
    return operators;
}

}  // namespace paro::torch_ops
