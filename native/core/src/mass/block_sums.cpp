#include "mass/block_sums.h"

#include <algorithm>
#include <utility>

#include "paro/spare.h"

namespace paro {

namespace {

// Millions of bytes a kernel and order.
Spares<std::vector<double>> spare_memory;

}  // namespace

double sum_of(std::span<const float> values) {
    const float* value = values.data();
    const auto count = static_cast<std::int64_t>(values.size());
    double sum = 0.0;
    for (std::int64_t first = 0; first < count; first += 64) {
        const std::int64_t end = std::min(first + 64, count);
        float lanes[8] = {};
        std::int64_t i = first;
        for (; i + 8 <= end; i += 8) {
            for (int lane = 0; lane < 8; ++lane) lanes[lane] += value[i + lane];
        }
        for (; i < end; ++i) lanes[0] += value[i];
        sum += ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    }
    return sum;
}

BlockSums::~BlockSums() {
    if (!memory_.empty()) spare_memory.give(std::move(memory_));
}

BlockSums::BlockSums(const OffsetKernel& kernel, const FlatGrid& grid, std::int32_t block_q, std::int32_t block_kv)
    : grid_(grid),
      block_q_(block_q),
      block_kv_(block_kv),
      rows_((grid.size() + block_q - 1) / block_q),
      cols_((grid.size() + block_kv - 1) / block_kv),
      bins0_(*kernel_axis(kernel, grid.axis[0]).bins, grid.planes),
      bins1_(*kernel_axis(kernel, grid.axis[1]).bins, grid.lines),
      both_width_(2 * grid.length + 1),
      width_(grid.length + 1),
      lines_(2 * grid.lines + 1),
      keys_(places(block_kv)) {
    // Differences of +-lines occur at a plane's end only, where nothing lies beside them: any bin serves.
    for (std::int64_t d = -grid.lines; d <= grid.lines; ++d) {
        const std::int64_t inside = std::clamp<std::int64_t>(d, 1 - grid.lines, grid.lines - 1);
        both_row_.push_back(static_cast<std::int32_t>(bins1_[inside] * both_width_));
    }
    make_tables(kernel);
    mass_.resize(static_cast<std::size_t>(cols_));
    low_.mass.resize(keys_.line.size());
    high_.mass.resize(keys_.line.size());
}

BlockSums::Places BlockSums::places(std::int32_t block) const {
    Places result;
    const std::int64_t plane_size = grid_.lines * grid_.length;
    const auto add = [&](std::int64_t place) {
        result.line.push_back(static_cast<std::int32_t>(place / grid_.length));
        result.token.push_back(static_cast<std::int32_t>(place % grid_.length));
        result.index.push_back(static_cast<std::int32_t>(place / grid_.length * width_ + place % grid_.length));
    };
    for (std::int64_t plane = 0; plane < grid_.planes; ++plane) {
        const std::int64_t start = plane * plane_size, end = start + plane_size;
        result.first_of_plane.push_back(static_cast<std::int64_t>(result.line.size()));
        result.block_of_plane.push_back(start / block);
        add(0);
        for (std::int64_t at = (start / block + 1) * block; at < end; at += block) add(at - start);
        add(plane_size);
    }
    result.first_of_plane.push_back(static_cast<std::int64_t>(result.line.size()));
    return result;
}

void BlockSums::make_tables(const OffsetKernel& kernel) {
    tables_.resize(kernel_axis(kernel, grid_.axis[0]).bins->edges.size());
    std::vector<bool> used(tables_.size(), false);
    std::int64_t count = 0;
    for (std::int64_t d = 1 - grid_.planes; d < grid_.planes; ++d) {
        if (used[bins0_[d]]) continue;
        used[bins0_[d]] = true;
        ++count;
    }
    const std::int64_t one = lines_ * width_, both = kernel_axis(kernel, grid_.axis[1]).bins->count() * both_width_;
    memory_ = spare_memory.take();
    // Never smaller: growing again would fill what is written anyway.
    memory_.resize(std::max(memory_.size(), static_cast<std::size_t>(count * (2 * one + both))));
    double* next = memory_.data();
    for (std::size_t bin = 0; bin < tables_.size(); ++bin) {
        if (!used[bin]) continue;
        tables_[bin] = {next, next + one, next + 2 * one};
        next += 2 * one + both;
        fill(kernel, static_cast<std::int64_t>(bin), tables_[bin]);
    }
}

// S(y) for every bin of the difference of lines, y = -length .. length: with C(y) = sum of the kernel over offsets
// below y, S(y) = sum of C over -length < z <= y. Query tokens before x and key tokens before c of two lines then have
// the mass S(c) - S(c - x) - S(0) + S(-x).
void BlockSums::second_order(const OffsetKernel& kernel, std::int64_t bin0, double* both) const {
    const KernelAxis axis0 = kernel_axis(kernel, grid_.axis[0]), axis1 = kernel_axis(kernel, grid_.axis[1]);
    const KernelAxis axis2 = kernel_axis(kernel, grid_.axis[2]);
    const BinTable bins2(*axis2.bins, grid_.length);
    for (std::int64_t bin1 = 0; bin1 < axis1.bins->count(); ++bin1) {
        const float* value = kernel.value.data() + bin0 * axis0.stride + bin1 * axis1.stride;
        double* sum = both + bin1 * both_width_ + grid_.length;
        double first = 0.0;
        sum[-grid_.length] = sum[1 - grid_.length] = 0.0;
        for (std::int64_t y = 2 - grid_.length; y <= grid_.length; ++y) {
            first += value[bins2[y - 1] * axis2.stride];
            sum[y] = sum[y - 1] + first;
        }
    }
}

void BlockSums::fill(const OffsetKernel& kernel, std::int64_t bin0, const Tables& own) const {
    second_order(kernel, bin0, own.both);
    // Sums over the lines before: of whole query lines with the keys before c, of whole key lines with the queries
    // before x, and of whole lines with whole lines, once and twice.
    std::vector<double> over_queries(static_cast<std::size_t>(width_), 0.0), over_keys(over_queries);
    double whole = 0.0, whole_twice = 0.0;
    for (std::int64_t d = -grid_.lines; d <= grid_.lines; ++d) {
        const bool inside = d > -grid_.lines && d < grid_.lines;
        const double* sum = own.both + both_row_[d + grid_.lines] + grid_.length;
        double* keys = own.keys + (d + grid_.lines) * width_;
        double* queries = own.queries + d + grid_.lines;  // by token, then line: read along the lines
        whole_twice += whole;
        for (std::int64_t x = 0; x < width_; ++x) {
            queries[x * lines_] = over_keys[x] - sum[0] + sum[-x];
            if (inside) over_queries[x] += sum[x] - sum[x - grid_.length] - sum[0];
            keys[x] = sum[x] - over_queries[x] - whole_twice;
            if (inside) over_keys[x] += sum[grid_.length] - sum[grid_.length - x] - sum[0] + sum[-x];
        }
        if (inside) whole += sum[grid_.length] - 2.0 * sum[0];
    }
}

void BlockSums::read(Cut& cut, std::int64_t plane, std::int64_t token, std::int64_t from) const {
    const std::int64_t line = token / grid_.length, x = token % grid_.length;
    cut.plane = plane;
    cut.token = token;
    cut.from = from;
    for (std::int64_t p = 0; p < grid_.planes; ++p) {
        const std::int64_t begin = std::max(from, keys_.first_of_plane[p]), end = keys_.first_of_plane[p + 1];
        if (begin >= end) continue;
        const Tables& own = tables_[bins0_[p - plane]];
        const double* keys = own.keys + (grid_.lines - line) * width_;
        const double* queries = own.queries + x * lines_ + grid_.lines - line;
        const double* both = own.both + grid_.length - x;
        const std::int32_t* row = both_row_.data() + grid_.lines - line;
        // Plain pointers: the compiler would read members again after every store.
        const std::int32_t *lines = keys_.line.data(), *tokens = keys_.token.data(), *index = keys_.index.data();
        double* mass = cut.mass.data();
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int32_t r = lines[i];
            mass[i] = keys[index[i]] + queries[r] - both[row[r] + tokens[i]];
        }
    }
}

// Adds the mass between the two cuts to the blocks from first_col on.
void BlockSums::add_between(std::int64_t first_col) {
    const double *low = low_.mass.data(), *high = high_.mass.data();
    for (std::int64_t p = 0; p < grid_.planes; ++p) {
        const std::int64_t first = keys_.first_of_plane[p], last = keys_.first_of_plane[p + 1] - 1;
        const std::int64_t shift = keys_.block_of_plane[p] - first;
        const std::int64_t begin = std::max(first, first_col - shift);
        if (begin >= last) continue;
        double* mass = mass_.data() + shift;
        for (std::int64_t i = begin; i < last; ++i) mass[i] += (high[i + 1] - low[i + 1]) - (high[i] - low[i]);
    }
}

void BlockSums::row(std::int64_t row, std::int64_t first_col, std::span<float> value) {
    std::fill(mass_.begin() + first_col, mass_.end(), 0.0);
    // Cuts before the first block's own start are never read.
    const std::int64_t first_token = first_col * block_kv_, plane_size = grid_.lines * grid_.length;
    const std::int64_t first_plane = first_token / plane_size;
    const std::int64_t from =
        std::max(keys_.first_of_plane[first_plane],
                 keys_.first_of_plane[first_plane] + first_col - keys_.block_of_plane[first_plane]);
    const std::int64_t end = std::min((row + 1) * block_q_, grid_.size());
    for (std::int64_t at = row * block_q_; at < end;) {
        const std::int64_t plane = at / plane_size, stop = std::min(end, (plane + 1) * plane_size);
        const std::int64_t token = at - plane * plane_size;
        std::swap(low_, high_);  // where the row before ended
        if (low_.plane != plane || low_.token != token || low_.from > from) read(low_, plane, token, from);
        read(high_, plane, stop - plane * plane_size, from);
        add_between(first_col);
        at = stop;
    }
    // Differences of large sums: a block without mass may come out a rounding error below zero.
    for (std::int64_t col = first_col; col < cols_; ++col) value[col] = static_cast<float>(std::max(mass_[col], 0.0));
}

}  // namespace paro
