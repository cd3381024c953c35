#include "cpu/attention_pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#if defined(_M_X64)
#include <intrin.h>
#endif

namespace paro::cpu {
namespace {

// Tokens sampled for the key shift: any vector is exact there, a mean is a good one.
constexpr std::int64_t kSample = 512;

// 127 / amax. Rows too small to divide by count as zero; NaN gives 0 here, and the scale carries it on.
float inverse_scale(float amax) { return amax >= 1e-30f ? 127.0f / amax : 0.0f; }

// Rows lie far apart in a (B, N, H*D) view, each on a page of its own, where no hardware prefetcher follows.
constexpr std::int64_t kPrefetchRows = 8;

void prefetch_row(const PackShape& shape, const std::byte* row) {
    const std::int32_t bytes = shape.head_dim * (shape.dtype == DType::f32 ? 4 : 2);
    for (std::int32_t at = 0; at < bytes; at += static_cast<std::int32_t>(kCacheLine)) {
#if defined(__GNUC__)
        __builtin_prefetch(row + at);
#elif defined(_M_X64)
        _mm_prefetch(reinterpret_cast<const char*>(row + at), _MM_HINT_T0);
#endif
    }
}

// Where element (row, col) of a [rows][cols] matrix in panels stands (attention_kernels.h).
std::int64_t panel_at(std::int64_t rows, std::int32_t cols, std::int32_t panel, std::int64_t row, std::int32_t col) {
    const std::int32_t first = col / panel * panel;
    return first * rows + row * std::min(panel, cols - first) + (col - first);
}

// A matrix of 4-byte words [rows][cols] becomes [cols][width] in panels, with zeros from column `rows` on.
void transpose_words(const void* src, std::int32_t rows, std::int32_t cols, void* dst, std::int32_t width,
                     std::int32_t panel) {
    constexpr std::int32_t step = kAlign;
    const auto* from = static_cast<const std::byte*>(src);
    auto* to = static_cast<std::byte*>(dst);
    for (std::int32_t r = 0; r < width; r += step) {
        const std::int32_t valid = std::clamp(rows - r, 0, step);
        const std::int64_t base = panel_at(cols, width, panel, 0, r), next = panel_at(cols, width, panel, 1, r) - base;
        for (std::int32_t c = 0; c < cols; ++c) {
            std::byte* out = to + (base + c * next) * 4;
            const std::byte* in = from + (std::int64_t{r} * cols + c) * 4;
            for (std::int32_t i = 0; i < valid; ++i) std::memcpy(out + i * 4, in + std::int64_t{i} * cols * 4, 4);
            std::memset(out + valid * 4, 0, static_cast<std::size_t>(step - valid) * 4);
        }
    }
}

// Row `row` of a [rows][cols] matrix in panels.
void put_row(const float* src, std::int64_t rows, std::int32_t cols, std::int32_t panel, std::int64_t row, float* dst) {
    for (std::int32_t c = 0; c < cols; c += panel) {
        std::copy_n(src + c, std::min(panel, cols - c), dst + panel_at(rows, cols, panel, row, c));
    }
}

void mean_row(const float* rows, std::int32_t count, std::int32_t head_dim, float* mean) {
    std::fill_n(mean, head_dim, 0.0f);
    for (std::int32_t j = 0; j < count; ++j) {
        for (std::int32_t c = 0; c < head_dim; ++c) mean[c] += rows[std::int64_t{j} * head_dim + c];
    }
    const float inverse = 1.0f / static_cast<float>(count);
    for (std::int32_t c = 0; c < head_dim; ++c) mean[c] *= inverse;
}

void pool_block(const PackShape& shape, std::int64_t block, const float* k_rows, const float* v_rows,
                std::int32_t count, const PackedHead& head) {
    const std::int32_t dim = shape.head_dim, panel = shape.kernels->panel;
    const std::int64_t grid_block = block - shape.kv.first_grid_block(), base = grid_block / kPooledPanel;
    float* k = head.pooled_k + base * kPooledPanel * dim;
    float* v = head.pooled_v + base * kPooledPanel * dim;
    const auto put = [&](std::int32_t column, const float* mean_k, const float* mean_v) {
        for (std::int32_t d = 0; d < dim; ++d) k[panel_at(dim, kPooledPanel, panel, d, column)] = mean_k[d];
        put_row(mean_v, kPooledPanel, dim, panel, column, v);
    };
    float mean_k[128], mean_v[128];
    mean_row(k_rows, count, dim, mean_k);
    mean_row(v_rows, count, dim, mean_v);
    auto column = static_cast<std::int32_t>(grid_block % kPooledPanel);
    put(column, mean_k, mean_v);
    if (grid_block + 1 < shape.kv.grid_blocks) return;
    std::fill_n(mean_k, dim, 0.0f);
    while (++column < kPooledPanel) put(column, mean_k, mean_k);
}

void load_rows(const PackShape& shape, const HeadRows& from, const std::int32_t* tokens, std::int32_t count,
               float* rows) {
    for (std::int32_t j = 0; j < count; ++j) {
        if (j + kPrefetchRows < count) prefetch_row(shape, from.row(tokens[j + kPrefetchRows]));
        shape.kernels->load_row(from.row(tokens[j]), shape.dtype, rows + std::int64_t{j} * shape.head_dim,
                                shape.head_dim);
    }
}

// (rows - shift) * factor in place; the greatest magnitude, NaN if anything is not finite.
float prepare_rows(const PackShape& shape, float* rows, std::int32_t count, const float* shift, const float* factor) {
    float top = 0.0f, probe = 0.0f;
    for (std::int32_t j = 0; j < count; ++j) {
        const float amax =
            shape.kernels->prepare_row(rows + std::int64_t{j} * shape.head_dim, shift, factor, shape.head_dim);
        top = std::max(top, amax);
        probe += amax * 0.0f;
    }
    return top + probe;
}

void quantise_keys(const PackShape& shape, const float* rows, std::int32_t count, float inverse, std::int64_t block,
                   const PackedHead& head, std::byte* scratch) {
    const std::int32_t group = shape.kernels->group, dim = shape.head_dim, block_kv = shape.kv.block;
    const std::int64_t row_bytes = std::int64_t{dim} * (4 / group);
    std::int32_t* init = head.k_init + block * block_kv;
    std::fill_n(init, block_kv, 0);
    for (std::int32_t j = 0; j < count; ++j) {
        std::byte* row = scratch + j * row_bytes;
        shape.kernels->quantise_row(rows + std::int64_t{j} * dim, inverse, 0, row, dim);
        if (group != 4) continue;
        const auto* values = reinterpret_cast<const std::int8_t*>(row);
        std::int32_t sum = 0;
        for (std::int32_t d = 0; d < dim; ++d) sum += values[d];
        init[j] = -128 * sum;  // takes back the 128 by which q is offset
    }
    transpose_words(scratch, count, dim / group, head.k8 + block * block_kv * row_bytes, block_kv,
                    shape.kernels->panel);
}

// Rows of T, [block_kv][head_dim], become [block_kv / group][head_dim][group] in panels.
template <class T, int group>
void interleave(const std::byte* src, std::int32_t block_kv, std::int32_t dim, std::int32_t panel, std::byte* to) {
    const T* rows = reinterpret_cast<const T*>(src);
    T* dst = reinterpret_cast<T*>(to);
    for (std::int32_t j = 0; j < block_kv; j += group) {
        for (std::int32_t first = 0; first < dim; first += panel) {
            const T* in = rows + std::int64_t{j} * dim + first;
            T* out = dst + panel_at(block_kv / group, dim, panel, j / group, first) * group;
            const std::int32_t width = std::min(panel, dim - first);
            for (std::int32_t c = 0; c < width; ++c) {
                for (int i = 0; i < group; ++i) out[c * group + i] = in[i * dim + c];
            }
        }
    }
}

void quantise_values(const PackShape& shape, const float* rows, std::int32_t count, float inverse, std::int64_t block,
                     const PackedHead& head, std::byte* scratch) {
    const std::int32_t group = shape.kernels->group, dim = shape.head_dim, block_kv = shape.kv.block;
    const std::int64_t row_bytes = std::int64_t{dim} * (4 / group);
    for (std::int32_t j = 0; j < count; ++j) {
        shape.kernels->quantise_row(rows + std::int64_t{j} * dim, inverse, 0, scratch + j * row_bytes, dim);
    }
    std::memset(scratch + count * row_bytes, 0, static_cast<std::size_t>((block_kv - count) * row_bytes));
    std::byte* dst = head.v8 + block * block_kv * row_bytes;
    switch (group) {
        case 4:
            interleave<std::int8_t, 4>(scratch, block_kv, dim, shape.kernels->panel, dst);
            break;
        case 2:
            interleave<std::int16_t, 2>(scratch, block_kv, dim, shape.kernels->panel, dst);
            break;
        default:
            interleave<float, 1>(scratch, block_kv, dim, shape.kernels->panel, dst);
    }
}

}  // namespace

PackedHead place_head(const PackShape& shape, Carver& carver) {
    PackedHead head;
    const std::int64_t values = shape.kv.padded_length() * shape.head_dim;
    if (shape.precision == Precision::fp32) {
        head.k = carver.take<float>(values);
        head.v = carver.take<float>(values);
    } else {
        const std::int64_t bytes = values * (4 / shape.kernels->group);
        head.k8 = carver.take<std::byte>(bytes);
        head.v8 = carver.take<std::byte>(bytes);
        head.k_init = carver.take<std::int32_t>(shape.kv.padded_length());
        head.k_scale = carver.take<float>(shape.kv.blocks());
        head.v_scale = carver.take<float>(shape.kv.blocks());
        head.shift = carver.take<float>(shape.head_dim);
        head.channel = carver.take<float>(shape.head_dim);
        head.channel_inverse = carver.take<float>(shape.head_dim);
    }
    if (shape.tail) {
        head.pooled_k = carver.take<float>(shape.panels() * kPooledPanel * shape.head_dim);
        head.pooled_v = carver.take<float>(shape.panels() * kPooledPanel * shape.head_dim);
    }
    return head;
}

void pack_statistics(const PackShape& shape, const HeadRows& k, const HeadRows& v, const PackedHead& head) {
    const std::int32_t dim = shape.head_dim;
    const std::int64_t length = shape.layout.length(), samples = std::min(length, kSample);
    float row[128], key_sum[128] = {};
    for (std::int64_t i = 0; i < samples; ++i) {
        // Spread evenly, the place inside each stretch by the golden ratio: a plain stride could meet one grid column.
        const std::int64_t first = i * length / samples, width = (i + 1) * length / samples - first;
        const std::int64_t token = first + ((i * 40503) & 0xffff) * width / 65536;
        shape.kernels->load_row(k.row(token), shape.dtype, row, dim);
        for (std::int32_t d = 0; d < dim; ++d) key_sum[d] += row[d];
    }
    // Over all tokens: where one token towers above the rest, its channels must be heard.
    float cubes[128] = {};
    for (std::int64_t token = 0; token < length; ++token) {
        if (token + kPrefetchRows < length) prefetch_row(shape, v.row(token + kPrefetchRows));
        shape.kernels->load_row(v.row(token), shape.dtype, row, dim);
        for (std::int32_t d = 0; d < dim; ++d) cubes[d] += std::fabs(row[d]) * row[d] * row[d];
    }
    float top = 0.0f;
    for (std::int32_t d = 0; d < dim; ++d) {
        head.shift[d] = key_sum[d] / static_cast<float>(samples);
        float mean = cubes[d] / static_cast<float>(length);
        // An overflow or a NaN here would spoil every block; the scale of the block that holds it carries it on.
        if (!(mean < std::numeric_limits<float>::max())) mean = std::numeric_limits<float>::max();
        head.channel[d] = std::cbrt(mean);
        top = std::max(top, head.channel[d]);
    }
    // A channel without values still needs a factor to divide by.
    const float floor = top > 1e-30f ? top * 1e-4f : 1.0f;
    for (std::int32_t d = 0; d < dim; ++d) {
        if (head.channel[d] < floor) head.channel[d] = floor;
        head.channel_inverse[d] = 1.0f / head.channel[d];
    }
}

void pack_block(const PackShape& shape, const HeadRows& k, const HeadRows& v, std::int64_t block,
                const std::int32_t* tokens, std::int32_t count, const PackedHead& head, float* scratch) {
    const std::int32_t dim = shape.head_dim, block_kv = shape.kv.block;
    const std::int64_t values = std::int64_t{block_kv} * dim;
    const bool pooled = shape.tail && shape.kv.is_grid_block(block);
    if (shape.precision == Precision::fp32) {
        const std::int32_t panel = shape.kernels->panel;
        float* v_rows = scratch + values;
        load_rows(shape, k, tokens, count, scratch);
        load_rows(shape, v, tokens, count, v_rows);
        transpose_words(scratch, count, dim, head.k + block * values, block_kv, panel);
        for (std::int32_t j = 0; j < count; ++j) {
            put_row(v_rows + std::int64_t{j} * dim, block_kv, dim, panel, j, head.v + block * values);
        }
        if (pooled) pool_block(shape, block, scratch, v_rows, count, head);
        return;
    }
    float* k_rows = scratch;
    float* v_rows = scratch + values;
    auto* bytes = reinterpret_cast<std::byte*>(scratch + 2 * values);
    load_rows(shape, k, tokens, count, k_rows);
    load_rows(shape, v, tokens, count, v_rows);
    prepare_rows(shape, k_rows, count, head.shift, nullptr);
    const float v_amax = prepare_rows(shape, v_rows, count, nullptr, head.channel_inverse);
    if (pooled) pool_block(shape, block, k_rows, v_rows, count, head);

    for (std::int32_t j = 0; j < count; ++j) shape.kernels->rotate_row(k_rows + std::int64_t{j} * dim, dim);
    const float k_amax = prepare_rows(shape, k_rows, count, nullptr, nullptr);
    head.k_scale[block] = k_amax / 127.0f;
    quantise_keys(shape, k_rows, count, inverse_scale(k_amax), block, head, bytes);
    head.v_scale[block] = v_amax / 127.0f;
    quantise_values(shape, v_rows, count, inverse_scale(v_amax), block, head, bytes);
}

void pack_queries(const PackShape& shape, const HeadRows& q, const std::int32_t* tokens, std::int32_t count,
                  float scale, const PackedQueries& packed) {
    const std::int32_t dim = shape.head_dim, group = shape.kernels->group;
    const std::int64_t row_bytes = std::int64_t{dim} * (4 / group);
    const std::int32_t padded = (count + 1) / 2 * 2;
    const bool int8 = shape.precision == Precision::int8;
    float loaded[128];
    for (std::int32_t r = 0; r < padded; ++r) {
        if (r + kPrefetchRows < count) prefetch_row(shape, q.row(tokens[r + kPrefetchRows]));
        if (r < count) {
            shape.kernels->load_row(q.row(tokens[r]), shape.dtype, loaded, dim);
        } else {
            std::fill_n(loaded, dim, 0.0f);
        }
        if (!int8 || shape.tail) {
            float* row = packed.q + std::int64_t{r} * dim;
            for (std::int32_t d = 0; d < dim; ++d) row[d] = loaded[d] * scale;
        }
        if (int8) {
            shape.kernels->rotate_row(loaded, dim);
            const float amax = shape.kernels->prepare_row(loaded, nullptr, nullptr, dim);
            packed.q_scale[strip_lane(r)] = amax / 127.0f * scale / static_cast<float>(dim);
            shape.kernels->quantise_row(loaded, inverse_scale(amax), group == 4 ? 128 : 0, packed.q8 + r * row_bytes,
                                        dim);
        }
    }
}

}  // namespace paro::cpu
