#include "paro/block_mask.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "paro/error.h"

namespace paro {

std::shared_ptr<BlockMask::Words> BlockMask::none() {
    static const auto empty = std::make_shared<Words>();
    return empty;
}

BlockMask::Words& BlockMask::own() {
    if (bits_.use_count() > 1) bits_ = std::make_shared<Words>(*bits_);
    return *bits_;
}

BlockMask::BlockMask(std::int64_t rows, std::int64_t cols) : rows_(rows), cols_(cols) {
    constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
    require(rows >= 0 && rows <= limit, "rows", "must be 0 to 2^31 - 1", rows);
    require(cols >= 0 && cols <= limit, "cols", "must be 0 to 2^31 - 1", cols);
    words_per_row_ = words_of(cols);
    bits_ = std::make_shared<Words>(static_cast<std::size_t>(rows * words_per_row_), 0u);
}

BlockMask BlockMask::full(std::int64_t rows, std::int64_t cols) {
    BlockMask mask(rows, cols);
    const std::int64_t rest = cols % 32;
    Words& bits = mask.own();
    for (std::int64_t word = 0; word < static_cast<std::int64_t>(bits.size()); ++word) {
        const bool ragged = rest != 0 && word % mask.words_per_row_ == mask.words_per_row_ - 1;
        bits[word] = ragged ? (1u << rest) - 1u : ~0u;
    }
    return mask;
}

void BlockMask::set(std::int64_t row, std::int64_t col, bool value) {
    require(row >= 0 && row < rows_, "row", "must be one of the mask's " + std::to_string(rows_), row);
    require(col >= 0 && col < cols_, "col", "must be one of the mask's " + std::to_string(cols_), col);
    std::uint32_t& word = own()[row * words_per_row_ + col / 32];
    const std::uint32_t bit = 1u << (col % 32);
    word = value ? word | bit : word & ~bit;
}

void BlockMask::set_row(std::int64_t row, std::span<const std::uint32_t> words) {
    require(row >= 0 && row < rows_, "row", "must be one of the mask's " + std::to_string(rows_), row);
    require(static_cast<std::int64_t>(words.size()) == words_per_row_, "words",
            "must hold the " + std::to_string(words_per_row_) + " words of a row", words.size());
    require(cols_ % 32 == 0 || words.back() >> (cols_ % 32) == 0, "words",
            "must hold no bits past the mask's " + std::to_string(cols_) + " columns", words.back());
    std::copy(words.begin(), words.end(), own().begin() + row * words_per_row_);
}

std::int64_t BlockMask::count() const {
    std::int64_t total = 0;
    for (const std::uint32_t word : words()) total += std::popcount(word);
    return total;
}

std::int64_t BlockMask::row_count(std::int64_t row) const {
    require(row >= 0 && row < rows_, "row", "must be one of the mask's " + std::to_string(rows_), row);
    std::int64_t total = 0;
    for (std::int64_t word = 0; word < words_per_row_; ++word) total += std::popcount(this->row(row)[word]);
    return total;
}

double BlockMask::density() const {
    const std::int64_t blocks = rows_ * cols_;
    return blocks == 0 ? 0.0 : static_cast<double>(count()) / static_cast<double>(blocks);
}

}  // namespace paro
