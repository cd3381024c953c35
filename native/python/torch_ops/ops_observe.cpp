// torch.ops.paro: observe, meter, dynamic_plan, block_importance. See paroattention/kernels/cuda_observe.py for the
// arguments.
#include <optional>

#include "device.h"
#include "paro/cuda/dynamic_mask.h"
#include "paro/cuda/importance.h"
#include "paro/cuda/observe.h"
#include "tensors.h"

namespace paro::torch_ops {
namespace {

// A contiguous tensor of `count` elements of a dtype on a device.
void check_flat(const char* name, const Tensor& x, std::int64_t count, std::int32_t dtype, std::int32_t device) {
    check_device(name, x, device);
    require(dtype_of(x) == dtype, name, "must be " + dtype_name(dtype), dtype_name(dtype_of(x)));
    require(x.is_contiguous() && x.numel() == count, name,
            "must be contiguous with " + std::to_string(count) + " elements for these sizes", described(x));
}

cuda::Sizes sizes_of(const AttentionParams& p, const Layout& layout) {
    return {
        p.layout.prefix,
        {static_cast<std::int32_t>(layout.f), static_cast<std::int32_t>(layout.h), static_cast<std::int32_t>(layout.w)},
        p.layout.suffix,
        p.q_blocks.block,
        p.kv_blocks.block};
}

// Of the device: these kernels are portable.
void check_capability(const AttentionParams& p, const DeviceScope& scope) {
    cuda::choose_path(p, cuda::Path::portable, scope.capability());
}

// Sampled queries of q and k; base is what make_params gave, with its layout.
void set_queries(cuda::SampleParams& p, const AttentionParams& base, const Layout& layout, const Tensor& q,
                 const Tensor& k, const Tensor& queries) {
    check_tensor("k", k, q);
    p.base = base;
    p.base.q = view(q), p.base.k = view(k);
    require(queries.dim() == 2 && queries.size(0) == base.heads, "queries",
            "must have the shape (H, n) with H = " + std::to_string(base.heads), shape_of(queries));
    check_flat("queries", queries, queries.numel(), aoti_torch_dtype_int32(), q.get_device_index());
    p.queries = to_int("queries", queries.size(1));
    p.places = static_cast<const std::int32_t*>(queries.data_ptr());
    cuda::set_samples(p, sizes_of(p.base, layout));
}

std::int32_t to_bins(const char* name, std::int64_t value) {
    const std::int32_t bins = to_int(name, value);
    require(bins >= 1 && bins <= 512, name, "must be 1 to 512", bins);
    return bins;
}

template <class T>
T* data(const Tensor& x) {
    return static_cast<T*>(x.data_ptr());
}

}  // namespace

// Adds to units (2, H, bins) int64, sums in units of 2^-32 and pairs, and to rows (H, 2) int64.
void observe(const Tensor& q, const Tensor& k, const Tensor& queries, const Tensor& tables, const Tensor& units,
             const Tensor& rows, const std::optional<Tensor>& kept, const std::optional<Tensor>& kept_rows,
             std::int64_t prefix, std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t suffix,
             std::int64_t bins_f, std::int64_t bins_h, std::int64_t bins_w, double sm_scale) {
    const Layout layout{prefix, f, h, w, suffix, 64, 64};
    AttentionParams base = make_params("q", q, sm_scale);
    set_layout(base, layout, "q", q);
    const std::int32_t device = q.get_device_index();
    const DeviceScope scope(device);
    check_capability(base, scope);
    cuda::ObserveParams p{};
    set_queries(p.sample, base, layout, q, k, queries);
    p.bins[0] = to_bins("bins_f", bins_f), p.bins[1] = to_bins("bins_h", bins_h), p.bins[2] = to_bins("bins_w", bins_w);
    const std::int64_t all = bins_f * bins_h * bins_w;
    check_flat("tables", tables, 2 * (f + h + w) - 3, aoti_torch_dtype_int32(), device);
    check_flat("units", units, 2 * base.heads * all, aoti_torch_dtype_int64(), device);
    check_flat("rows", rows, 2 * base.heads, aoti_torch_dtype_int64(), device);
    p.tables = data<std::int32_t>(tables);
    p.sums = data<std::uint64_t>(units);
    p.pairs = p.sums + base.heads * all;
    p.rows = data<std::int64_t>(rows);
    require(kept.has_value() == kept_rows.has_value(), "kept_rows", "must come with kept",
            kept ? "kept alone" : "kept_rows alone");
    if (kept) {
        check_flat("kept", *kept, base.heads, aoti_torch_dtype_int32(), device);
        require(kept_rows->dim() == 3, "kept_rows", "must have the shape (heads, n, grid tokens)",
                shape_of(*kept_rows));
        const std::int64_t row = std::int64_t{p.sample.queries} * base.layout.grid;
        check_flat("kept_rows", *kept_rows, kept_rows->size(0) * row, aoti_torch_dtype_float16(), device);
        p.kept = data<std::int32_t>(*kept);
        p.kept_rows = kept_rows->data_ptr();
    }
    const Tensor scratch = allocate(q, cuda::observe_bytes(p));
    cuda::place_observe(p, scratch.data_ptr());
    cuda::launch_observe(p, scope.stream());
}

// float32 (H, 2); without v the second of each is NaN.
Tensor meter(const Tensor& q, const Tensor& k, const std::optional<Tensor>& v, const Tensor& plan,
             const Tensor& queries, std::int64_t prefix, std::int64_t f, std::int64_t h, std::int64_t w,
             std::int64_t suffix, std::int64_t block_q, std::int64_t block_kv, double sm_scale, bool tail) {
    const Layout layout{prefix, f, h, w, suffix, block_q, block_kv};
    AttentionParams base = make_params("q", q, plan, layout, sm_scale, 0, tail);
    if (v) {
        check_tensor("v", *v, q);
        base.v = view(*v);
    }
    const DeviceScope scope(q.get_device_index());
    check_capability(base, scope);
    cuda::MeterParams p{};
    p.outputs = v.has_value();
    set_queries(p.sample, base, layout, q, k, queries);
    cuda::set_meter(p);
    const Tensor scratch = allocate(q, cuda::meter_bytes(p));
    cuda::place_meter(p, scratch.data_ptr());
    const std::array<std::int64_t, 2> size = {base.heads, 2};
    const Tensor out = new_tensor(q, size, ScalarType::Float);
    p.out = data<float2>(out);
    cuda::launch_meter(p, scope.stream());
    return out;
}

// The words of a plan with the masks that were found, int32. orders: int32 (H), numbers of AxisOrder; densities:
// float32 (H).
Tensor dynamic_plan(const Tensor& q, const Tensor& k, const Tensor& orders, const Tensor& densities,
                    std::int64_t prefix, std::int64_t f, std::int64_t h, std::int64_t w, std::int64_t suffix,
                    std::int64_t block_q, std::int64_t block_kv, double sm_scale) {
    cuda::DynamicMaskParams p{};
    AttentionParams& base = p.base = make_params("q", q, sm_scale);
    set_layout(base, {prefix, f, h, w, suffix, block_q, block_kv}, "q", q);
    check_tensor("k", k, q);
    base.q = view(q), base.k = view(k);
    const std::int32_t device = q.get_device_index();
    check_flat("orders", orders, base.heads, aoti_torch_dtype_int32(), device);
    check_flat("densities", densities, base.heads, aoti_torch_dtype_float32(), device);
    const DeviceScope scope(device);
    check_capability(base, scope);
    const PlanWords layout = cuda::plan_layout(base);
    const Tensor words = new_tensor<1>(orders, {layout.count()}, ScalarType::Int);
    const Tensor scratch = allocate(q, cuda::dynamic_mask_bytes(p));
    cuda::place_dynamic_mask(p, scratch.data_ptr());
    auto* first = data<std::int32_t>(words);
    base.plan.orders = data<std::int32_t>(orders);
    p.densities = data<float>(densities);
    p.schedule = first + layout.schedule();
    p.masks = reinterpret_cast<std::uint32_t*>(first + layout.masks());
    cuda::copy_on_device(first + layout.orders(), orders.data_ptr(), sizeof(std::int32_t) * base.heads, scope.stream());
    cuda::launch_dynamic_mask(p, scope.stream());
    return words;
}

// float32 (B, H, rows, cols) by grid blocks of 64. orders: int32 (H), numbers of AxisOrder. path: as attention's.
Tensor block_importance(const Tensor& q, const Tensor& k, const Tensor& orders, std::int64_t prefix, std::int64_t f,
                        std::int64_t h, std::int64_t w, std::int64_t suffix, double sm_scale, std::int64_t path) {
    cuda::ImportanceParams p{};
    AttentionParams& base = p.base = make_params("q", q, sm_scale);
    set_layout(base, {prefix, f, h, w, suffix, 64, 64}, "q", q);
    check_tensor("k", k, q);
    base.q = view(q), base.k = view(k);
    const std::int32_t device = q.get_device_index();
    check_flat("orders", orders, base.heads, aoti_torch_dtype_int32(), device);
    p.orders = data<std::int32_t>(orders);
    const DeviceScope scope(device);
    check_capability(base, scope);
    cuda::set_importance(p, to_path(path), scope.capability());
    const Tensor scratch = allocate(q, cuda::importance_bytes(p));
    cuda::place_importance(p, scratch.data_ptr());
    const std::array<std::int64_t, 4> size = {base.batch, base.heads, base.q_blocks.grid_blocks,
                                              base.kv_blocks.grid_blocks};
    const Tensor out = new_tensor(q, size, ScalarType::Float);
    p.out = data<float>(out);
    cuda::launch_importance(p, scope.stream());
    return out;
}

#define PARO_GRID "int prefix, int grid_f, int grid_h, int grid_w, int suffix"

std::span<const Operator> observing_operators() {
    static constexpr Operator operators[] = {
        {"observe(Tensor q, Tensor k, Tensor queries, Tensor tables, Tensor(a!) units, Tensor(b!) rows, Tensor? kept, "
         "Tensor(c!)? kept_rows, " PARO_GRID ", int bins_f, int bins_h, int bins_w, float sm_scale) -> ()",
         PARO_BOX(observe)},
        {"meter(Tensor q, Tensor k, Tensor? v, Tensor plan, Tensor queries, " PARO_LAYOUT
         ", float sm_scale, bool tail) -> Tensor",
         PARO_BOX(meter)},
        {"dynamic_plan(Tensor q, Tensor k, Tensor orders, Tensor densities, " PARO_LAYOUT ", float sm_scale) -> Tensor",
         PARO_BOX(dynamic_plan)},
        {"block_importance(Tensor q, Tensor k, Tensor orders, " PARO_GRID ", float sm_scale, int path) -> Tensor",
         PARO_BOX(block_importance)},
    };
    return operators;
}

}  // namespace paro::torch_ops
