// Bit-packed block masks: which grid key blocks each grid query tile computes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace paro {

// Words of a mask row of `cols` blocks.
constexpr std::int64_t words_of(std::int64_t cols) { return (cols + 31) / 32; }

// rows = grid query tiles, cols = grid key blocks. Bit c of a row is bit c % 32 of word c / 32; rows start on words,
// bits past cols are zero. The kernels walk rows directly. Copies share their words until one of them is changed: plans
// that differ in some heads hold the others' masks, 92 MB a layer of a long video, once.
class BlockMask {
   public:
    BlockMask() = default;
    // All blocks out. Throws Error for negative sizes.
    BlockMask(std::int64_t rows, std::int64_t cols);
    static BlockMask full(std::int64_t rows, std::int64_t cols);

    std::int64_t rows() const { return rows_; }
    std::int64_t cols() const { return cols_; }
    std::int64_t words_per_row() const { return words_per_row_; }

    bool get(std::int64_t row, std::int64_t col) const { return (this->row(row)[col / 32] >> (col % 32)) & 1u; }
    void set(std::int64_t row, std::int64_t col, bool value = true);
    // All of a row at once: words_per_row() words, bits past cols zero. Throws Error otherwise.
    void set_row(std::int64_t row, std::span<const std::uint32_t> words);

    const std::uint32_t* row(std::int64_t row) const { return bits_->data() + row * words_per_row_; }
    const std::vector<std::uint32_t>& words() const { return *bits_; }

    std::int64_t count() const;
    std::int64_t row_count(std::int64_t row) const;
    // Share of blocks in the mask; 0 for an empty mask.
    double density() const;

    friend bool operator==(const BlockMask& a, const BlockMask& b) {
        return a.rows_ == b.rows_ && a.cols_ == b.cols_ && (a.bits_ == b.bits_ || *a.bits_ == *b.bits_);
    }

   private:
    using Words = std::vector<std::uint32_t>;
    static std::shared_ptr<Words> none();
    // The words, to be changed: this mask's alone from now on.
    Words& own();

    std::int64_t rows_ = 0, cols_ = 0, words_per_row_ = 0;
    std::shared_ptr<Words> bits_ = none();
};

}  // namespace paro
