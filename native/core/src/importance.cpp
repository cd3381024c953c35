#include "paro/importance.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "flat_grid.h"
#include "paro/error.h"

namespace paro {

namespace {

// Prefix sums of a kernel from which the mass between a box of queries and all keys up to any place in a plane is a
// sum of eight entries.
//
// With k(d0, d1, d2) the kernel and, for one d0 and d1, S(x) = sum over y < x of sum over u < y of k(u), a query run
// [a0, a1) has on the keys [0, r) of one line the mass S(r - a0 + 1) - S(r - a1 + 1) - S(1 - a0) + S(1 - a1). The terms
// are gathered over whole lines (prefix sums over d1) into
//   mass(x1, x)  = sum over d1 < x1 of S(d1, x), for the line the keys end in, and
//   lines(x1, a) = the same of the lines before it, less the constant of the line itself,
// and both are summed over the query's lines too. Since the kernel is constant within a bin of d0, one table per bin
// serves all planes.
class MassTable {
   public:
    MassTable(const OffsetKernel& kernel, const FlatGrid& grid)
        : grid_(grid),
          bins0_(*kernel_axis(kernel, grid.axis[0]).bins, grid.planes),
          width_(2 * grid.length + 1),
          edge_width_(grid.length + 1),
          rows_(2 * grid.lines + 1),
          table_of_bin_(kernel_axis(kernel, grid.axis[0]).bins->edges.size(), -1) {
        std::int64_t tables = 0;
        for (std::int64_t d0 = 1 - grid.planes; d0 < grid.planes; ++d0) {
            if (std::int64_t& table = table_of_bin_[bins0_[d0]]; table < 0) table = tables++;
        }
        mass_.assign(static_cast<std::size_t>(tables * rows_ * width_), 0.0);
        lines_.assign(static_cast<std::size_t>(tables * rows_ * edge_width_), 0.0);
        for (std::size_t bin = 0; bin < table_of_bin_.size(); ++bin) {
            if (table_of_bin_[bin] >= 0) fill(kernel, static_cast<std::int64_t>(bin), table_of_bin_[bin]);
        }
    }

    std::int64_t width() const { return width_; }
    std::int64_t edge_width() const { return edge_width_; }

    // Pointers for one query box against one plane of keys. The mass on the keys before (line, at) of that plane, up to
    // a constant, is at(line * width + at, line * edge_width).
    struct View {
        const double *high0, *high1, *low0, *low1;
        const double *edge_high0, *edge_high1, *edge_low0, *edge_low1;

        double at(std::int64_t offset, std::int64_t edge) const {
            return (edge_high0[edge] - edge_high1[edge]) - (edge_low0[edge] - edge_low1[edge]) +
                   ((high0[offset] - high1[offset]) - (low0[offset] - low1[offset]));
        }
    };

    View view(const Box& box, std::int64_t plane) const {
        const std::int64_t table = table_of_bin_[bins0_[plane - box.plane]];
        // Row r - c + 1 of line difference r - c is stored at + lines - 1; column likewise.
        const std::int64_t high = table * rows_ + grid_.lines - box.line_begin;
        const std::int64_t low = table * rows_ + grid_.lines - box.line_end;
        const double* mass_high = mass_.data() + high * width_ + grid_.length;
        const double* mass_low = mass_.data() + low * width_ + grid_.length;
        const double* lines_high = lines_.data() + high * edge_width_;
        const double* lines_low = lines_.data() + low * edge_width_;
        return {mass_high - box.begin,  mass_high - box.end,  mass_low - box.begin,  mass_low - box.end,
                lines_high + box.begin, lines_high + box.end, lines_low + box.begin, lines_low + box.end};
    }

   private:
    // S for every bin of d1 at one bin of d0.
    std::vector<double> second_order(const OffsetKernel& kernel, std::int64_t bin0) const {
        const KernelAxis axis0 = kernel_axis(kernel, grid_.axis[0]), axis1 = kernel_axis(kernel, grid_.axis[1]);
        const KernelAxis axis2 = kernel_axis(kernel, grid_.axis[2]);
        const BinTable bins2(*axis2.bins, grid_.length);
        std::vector<double> result(static_cast<std::size_t>(axis1.bins->count() * width_), 0.0);
        for (std::int64_t bin1 = 0; bin1 < axis1.bins->count(); ++bin1) {
            const float* value = kernel.value.data() + bin0 * axis0.stride + bin1 * axis1.stride;
            double* row = result.data() + bin1 * width_;  // row[x + length - 1] = S(x), 0 up to x = 2 - length
            double first = 0.0;
            for (std::int64_t x = 2; x < width_; ++x) {
                const std::int64_t offset = x - 1 - grid_.length;
                first += value[bins2[offset] * axis2.stride];
                row[x] = row[x - 1] + first;
            }
        }
        return result;
    }

    void fill(const OffsetKernel& kernel, std::int64_t bin0, std::int64_t table) {
        const std::vector<double> second = second_order(kernel, bin0);
        const BinTable bins1(*kernel_axis(kernel, grid_.axis[1]).bins, grid_.lines);
        double* mass = mass_.data() + table * rows_ * width_;
        double* lines = lines_.data() + table * rows_ * edge_width_;
        const std::int64_t differences = 2 * grid_.lines - 1;  // of lines; the rows after them repeat the last sum
        for (std::int64_t row = 1; row < rows_; ++row) {
            const double* before = mass + (row - 1) * width_;
            double* here = mass + row * width_;
            if (row <= differences) {
                const double* add = second.data() + bins1[row - grid_.lines] * width_;
                for (std::int64_t x = 0; x < width_; ++x) here[x] = before[x] + add[x];
            } else {
                std::copy(before, before + width_, here);
            }
            for (std::int64_t a = 0; a < edge_width_; ++a) {
                const double whole = before[2 * grid_.length - a], own = here[grid_.length - a];
                lines[row * edge_width_ + a] = lines[(row - 1) * edge_width_ + a] + (whole - own);
            }
        }
    }

    FlatGrid grid_;
    BinTable bins0_;
    std::int64_t width_, edge_width_, rows_;
    std::vector<std::int64_t> table_of_bin_;
    std::vector<double> mass_, lines_;
};

// A place where the running mass over keys is read: each plane's start, every block boundary inside, the plane's end.
struct Cut {
    std::int64_t offset, edge;
    std::int64_t block;  // that the keys from here on belong to
};

struct Cuts {
    std::vector<Cut> cut;
    std::vector<std::int64_t> first_of_plane;  // planes + 1 entries
    std::vector<std::int64_t> first_of_block;
};

Cuts cut_keys(const FlatGrid& grid, const MassTable& table, std::int64_t block) {
    Cuts cuts;
    const std::int64_t plane_size = grid.lines * grid.length;
    for (std::int64_t plane = 0; plane < grid.planes; ++plane) {
        cuts.first_of_plane.push_back(static_cast<std::int64_t>(cuts.cut.size()));
        const std::int64_t begin = plane * plane_size, end = begin + plane_size;
        for (std::int64_t token = begin; token < end; token = (token / block + 1) * block) {
            const std::int64_t line = (token - begin) / grid.length, at = (token - begin) % grid.length;
            if (token % block == 0) cuts.first_of_block.push_back(static_cast<std::int64_t>(cuts.cut.size()));
            cuts.cut.push_back({line * table.width() + at, line * table.edge_width(), token / block});
        }
        cuts.cut.push_back({grid.lines * table.width(), grid.lines * table.edge_width(), -1});
    }
    cuts.first_of_plane.push_back(static_cast<std::int64_t>(cuts.cut.size()));
    return cuts;
}

// Adds one query box's mass on all key blocks from `first_cut` on.
void add_box(const FlatGrid& grid, const MassTable& table, const Cuts& cuts, const Box& box, std::int64_t first_cut,
             std::vector<double>& mass) {
    for (std::int64_t plane = 0; plane < grid.planes; ++plane) {
        const std::int64_t begin = std::max(first_cut, cuts.first_of_plane[plane]);
        const std::int64_t end = cuts.first_of_plane[plane + 1];
        if (begin >= end) continue;
        const MassTable::View view = table.view(box, plane);
        double before = view.at(cuts.cut[begin].offset, cuts.cut[begin].edge);
        for (std::int64_t i = begin + 1; i < end; ++i) {
            const double here = view.at(cuts.cut[i].offset, cuts.cut[i].edge);
            mass[cuts.cut[i - 1].block] += here - before;
            before = here;
        }
    }
}

void check_kernel(const OffsetKernel& kernel) {
    validate(kernel.bins);
    require(static_cast<std::int64_t>(kernel.value.size()) == kernel.bins.size(), "kernel.value",
            "must have " + std::to_string(kernel.bins.size()) + " values, one per bin", kernel.value.size());
    for (const float value : kernel.value) {
        require(std::isfinite(value) && value >= 0.0f, "kernel.value", "must be finite and not negative", value);
    }
}

void check_map(const BlockMap& map) {
    require(map.rows >= 1 && map.cols >= 1, "map", "must have blocks",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    require(static_cast<std::int64_t>(map.value.size()) == map.rows * map.cols, "map.value",
            "must have rows * cols = " + std::to_string(map.rows * map.cols) + " values", map.value.size());
}

}  // namespace

double BlockMap::total() const {
    double sum = 0.0;
    for (const float mass : value) sum += mass;
    return sum;
}

BlockMap empty_map(const Grid& grid, AxisOrder order, std::int32_t block_q, std::int32_t block_kv) {
    validate(grid);
    require(block_q >= 1 && block_q <= 4096, "block_q", "must be 1 to 4096", block_q);
    require(block_kv >= 1 && block_kv <= 4096, "block_kv", "must be 1 to 4096", block_kv);
    to_string(order);  // throws for a value outside the six
    BlockMap map{
        order, block_q, block_kv, (grid.size() + block_q - 1) / block_q, (grid.size() + block_kv - 1) / block_kv, {}};
    require(map.rows <= (std::int64_t{1} << 28) / map.cols, "grid", "must have at most 2^28 block pairs at this tile",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    map.value.assign(static_cast<std::size_t>(map.rows * map.cols), 0.0f);
    return map;
}

BlockMap importance(const OffsetKernel& kernel, const Grid& grid, AxisOrder order, std::int32_t block_q,
                    std::int32_t block_kv) {
    check_kernel(kernel);
    BlockMap map = empty_map(grid, order, block_q, block_kv);
    const FlatGrid flat(grid, order);
    const MassTable table(kernel, flat);
    const Cuts cuts = cut_keys(flat, table, block_kv);
    // k(d) = k(-d) makes the map symmetric: half of it is copied.
    const bool symmetric = block_q == block_kv && kernel.bins.f.even() && kernel.bins.h.even() && kernel.bins.w.even();

    std::vector<double> mass(static_cast<std::size_t>(map.cols));
    for (std::int64_t row = 0; row < map.rows; ++row) {
        std::fill(mass.begin(), mass.end(), 0.0);
        const std::int64_t first = row * block_q, last = std::min(first + block_q, flat.size());
        const std::int64_t first_col = symmetric ? row : 0;
        for (const Box& box : boxes_of(flat, first, last)) {
            add_box(flat, table, cuts, box, cuts.first_of_block[first_col], mass);
        }
        float* value = map.value.data() + row * map.cols;
        for (std::int64_t col = 0; col < first_col; ++col) value[col] = map.value[col * map.cols + row];
        // Differences of large sums: a block without mass may come out a rounding error below zero.
        for (std::int64_t col = first_col; col < map.cols; ++col) {
            value[col] = static_cast<float>(std::max(mass[col], 0.0));
        }
    }
    return map;
}

void accumulate_rows(BlockMap& map, const Grid& grid, std::span<const std::int32_t> queries,
                     std::span<const float> rows) {
    check_map(map);
    const BlockMap shape = empty_map(grid, map.order, map.block_q, map.block_kv);
    require(map.rows == shape.rows && map.cols == shape.cols, "map", "must be made by empty_map for this grid",
            std::to_string(map.rows) + " x " + std::to_string(map.cols));
    const std::int64_t size = grid.size();
    require(static_cast<std::int64_t>(rows.size()) == static_cast<std::int64_t>(queries.size()) * size, "rows",
            "must have queries * grid tokens = " + std::to_string(static_cast<std::int64_t>(queries.size()) * size) +
                " values",
            rows.size());
    for (const std::int32_t query : queries) {
        require(query >= 0 && query < size, "queries", "must be grid indices", query);
    }
    const std::vector<std::int32_t> order = permutation(grid, map.order);
    const std::vector<std::int32_t> place = inverse_permutation(order);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        const float* row = rows.data() + static_cast<std::int64_t>(i) * size;
        float* value = map.value.data() + place[queries[i]] / map.block_q * map.cols;
        for (std::int64_t col = 0; col < map.cols; ++col) {
            const std::int64_t last = std::min(size, (col + 1) * map.block_kv);
            double sum = 0.0;
            for (std::int64_t token = col * map.block_kv; token < last; ++token) sum += row[order[token]];
            value[col] += static_cast<float>(sum);
        }
    }
}

BlockMask make_mask(const BlockMap& map, double density) {
    check_map(map);
    require(density > 0.0 && density <= 1.0, "density", "must be above 0 and at most 1", density);
    for (const float value : map.value) require(std::isfinite(value), "map.value", "must be finite", value);
    BlockMask mask(map.rows, map.cols);
    const std::int64_t blocks = map.rows * map.cols;
    const std::int64_t wanted = std::min<std::int64_t>(blocks, std::llround(density * static_cast<double>(blocks)));
    if (wanted > 0) {
        // The wanted-th greatest value splits the blocks; of those equal to it the first ones in row order come in.
        std::vector<float> sorted = map.value;
        std::nth_element(sorted.begin(), sorted.begin() + (wanted - 1), sorted.end(), std::greater<>());
        const float least = sorted[wanted - 1];
        std::int64_t ties = wanted - std::count_if(sorted.begin(), sorted.begin() + wanted,
                                                   [least](float value) { return value > least; });
        for (std::int64_t i = 0; i < blocks; ++i) {
            const float value = map.value[i];
            if (value > least || (value == least && ties-- > 0)) mask.set(i / map.cols, i % map.cols);
        }
    }
    for (std::int64_t row = 0; row < map.rows; ++row) {
        if (mask.row_count(row) > 0) continue;
        const float* value = map.value.data() + row * map.cols;
        mask.set(row, std::max_element(value, value + map.cols) - value);
    }
    return mask;
}

double retained_mass(const BlockMap& map, const BlockMask& mask) {
    check_map(map);
    require(mask.rows() == map.rows && mask.cols() == map.cols, "mask",
            "must have " + std::to_string(map.rows) + " x " + std::to_string(map.cols) + " blocks",
            std::to_string(mask.rows()) + " x " + std::to_string(mask.cols()));
    double inside = 0.0, all = 0.0;
    for (std::int64_t row = 0; row < map.rows; ++row) {
        const float* value = map.value.data() + row * map.cols;
        const std::uint32_t* bits = mask.row(row);
        for (std::int64_t col = 0; col < map.cols; ++col) {
            all += value[col];
            if ((bits[col / 32] >> (col % 32)) & 1u) inside += value[col];
        }
    }
    return all > 0.0 ? inside / all : 1.0;
}

}  // namespace paro
