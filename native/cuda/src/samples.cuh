// Which rows a CTA looks at, of the sampled queries of a call.
#pragma once

#include "paro/cuda/observe.h"
#include "score_tile.cuh"

namespace paro::cuda {

// At most 64 sampled queries of a head in one batch entry: numbers first .. first + count - 1 of the head.
struct SampleItem {
    std::int32_t slot, head, first, count;

    __device__ SampleItem(const SampleParams& p, std::int32_t item) {
        const std::int32_t batch = p.base.batch;
        slot = item / p.row_tiles;
        const std::int32_t entry = slot / p.base.heads;
        head = slot - entry * p.base.heads;
        const std::int32_t begin = (entry * p.queries + batch - 1) / batch;
        const std::int32_t end = ((entry + 1) * p.queries + batch - 1) / batch;
        first = begin + (item - slot * p.row_tiles) * kSampleRows;
        count = max(0, min(kSampleRows, end - first));
    }
    // Grid place of a row, original order; -1 for none.
    __device__ std::int32_t place(const SampleParams& p, std::int32_t row) const {
        if (row >= count) return -1;
        const std::int32_t found = __ldg(p.places + std::int64_t{head} * p.queries + first + row);
        return static_cast<std::uint32_t>(found) < static_cast<std::uint32_t>(p.base.layout.grid) ? found : -1;
    }
};

// The item's rows of q to shared memory; the caller commits.
template <class T, int D>
__device__ __forceinline__ void copy_samples(const SampleParams& p, const SampleItem& item, std::uint32_t to) {
    using Rows = RowCopy<T, D, kSampleRows>;
    const std::int32_t place = item.place(p, Rows::row());
    Rows::copy(head_rows<T>(p.base.q, p.base, item.slot), p.base.q.stride_n,
               place < 0 ? -1 : place + p.base.layout.prefix, to);
}

struct GridPlace {
    std::int32_t f, h, w;
    __device__ GridPlace(const AttentionParams& p, std::int32_t place) {
        const OrderParams& order = p.layout.orders[0];  // FHW
        f = order.by_plane(place);
        const std::int32_t rest = place - f * static_cast<std::int32_t>(order.by_plane.divisor);
        h = order.by_row(rest);
        w = rest - h * static_cast<std::int32_t>(order.by_row.divisor);
    }
};

}  // namespace paro::cuda
