// Sums of an offset kernel over block pairs, row by row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "grid/flat_grid.h"
#include "paro/offset_kernel.h"

namespace paro {

// In lanes, which keeps the additions from waiting for each other.
double sum_of(std::span<const float> values);

// The mass G(t, u) between the query tokens before place t of one plane and the key tokens before place u of another
// depends, up to terms of t alone and of u alone, on the difference of lines d and the places x and c along them only:
// with t = (line l, token x), u = (line r, token c), d = r - l, it is
//   G = keys(d, c) + queries(d, x) - both(d, c - x).
// A block pair's mass is a second difference of G, in which those terms vanish: three look-ups a pair instead of a sum
// over tokens. One set of tables for each bin of the difference of planes serves all planes.
class BlockSums {
   public:
    // kernel: checked by the caller; must outlive this. Tiles of the packed grid in the order of `grid`.
    BlockSums(const OffsetKernel& kernel, const FlatGrid& grid, std::int32_t block_q, std::int32_t block_kv);
    ~BlockSums();
    BlockSums(const BlockSums&) = delete;
    BlockSums& operator=(const BlockSums&) = delete;

    std::int64_t rows() const { return rows_; }
    std::int64_t cols() const { return cols_; }
    // value[col] = mass of (row, col) for col >= first_col; the others are left as they are. Never negative.
    // Neighbouring rows in ascending order share half of the work.
    void row(std::int64_t row, std::int64_t first_col, std::span<float> value);

   private:
    // A place where the running mass is read: each plane's start, every block boundary inside, the plane's end.
    struct Places {
        std::vector<std::int32_t> line, token, index;  // index: line * width + token, where tables of keys have it
        std::vector<std::int64_t> first_of_plane;      // planes + 1
        std::vector<std::int64_t> block_of_plane;      // the block that holds the plane's first token
    };
    struct Tables {
        double *keys = nullptr, *queries = nullptr, *both = nullptr;
    };
    // One query cut seen from all keys.
    struct Cut {
        std::int64_t plane = -1, token = -1, from = 0;
        std::vector<double> mass;
    };

    Places places(std::int32_t block) const;
    void make_tables(const OffsetKernel& kernel);
    void fill(const OffsetKernel& kernel, std::int64_t bin0, const Tables& own) const;
    void second_order(const OffsetKernel& kernel, std::int64_t bin0, double* both) const;
    void read(Cut& cut, std::int64_t plane, std::int64_t token, std::int64_t from) const;
    void add_between(std::int64_t first_col);

    FlatGrid grid_;
    std::int32_t block_q_, block_kv_;
    std::int64_t rows_, cols_;
    BinTable bins0_, bins1_;
    std::int64_t both_width_, width_, lines_;  // of the tables: 2 * length + 1, length + 1, 2 * lines + 1
    std::vector<std::int32_t> both_row_;       // by difference of lines: where its bin's sums start
    Places keys_;
    std::vector<double> memory_;  // of all tables
    std::vector<Tables> tables_;  // by bin of the difference of planes; empty where it does not occur
    Cut low_, high_;
    std::vector<double> mass_;
};

}  // namespace paro
