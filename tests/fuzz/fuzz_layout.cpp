// Token layouts: any numbers are refused or laid out, and each token has one place.
#include "fuzz_values.h"

namespace {

void check_orders(const paro::Grid& grid) {
    for (const paro::AxisOrder order : paro::kAxisOrders) {
        const auto to = paro::permutation(grid, order), from = paro::inverse_permutation(to);
        for (std::size_t i = 0; i < to.size(); ++i) {
            fuzz::check(static_cast<std::size_t>(from[static_cast<std::size_t>(to[i])]) == i, "inverses must undo");
        }
    }
}

void check_places(const paro::TokenLayout& layout, paro::AxisOrder order, std::int32_t block) {
    const paro::BlockLayout blocks = paro::block_layout(layout, block);
    const std::vector<std::int32_t> places = paro::pack_index(layout, order, block);
    fuzz::check(static_cast<std::int64_t>(places.size()) == blocks.padded_length(), "every place must be told");
    std::vector<int> seen(static_cast<std::size_t>(layout.length()));
    for (const std::int32_t token : places) {
        if (token >= 0) ++seen.at(static_cast<std::size_t>(token));
    }
    for (const int count : seen) fuzz::check(count == 1, "each token must have one place");
    std::int64_t tokens = 0;
    for (std::int64_t b = 0; b < blocks.blocks(); ++b) tokens += paro::tokens_in_block(layout, blocks, b);
    fuzz::check(tokens == layout.length(), "blocks must hold every token once");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Bytes bytes(data, size);
    const fuzz::Budget budget;
    if (bytes.ConsumeBool()) {  // any numbers
        paro::TokenLayout layout;
        layout.prefix = bytes.ConsumeIntegral<std::int64_t>();
        layout.suffix = bytes.ConsumeIntegral<std::int64_t>();
        layout.grid = {bytes.ConsumeIntegral<std::int32_t>(), bytes.ConsumeIntegral<std::int32_t>(),
                       bytes.ConsumeIntegral<std::int32_t>()};
        const auto block = bytes.ConsumeIntegral<std::int32_t>();
        const auto index = bytes.ConsumeIntegral<std::int64_t>();
        fuzz::accepted([&] {
            const paro::BlockLayout blocks = paro::block_layout(layout, block);
            fuzz::check(blocks.padded_length() >= layout.length(), "blocks must hold every token");
            const std::int32_t tokens = paro::tokens_in_block(layout, blocks, index);
            fuzz::check(tokens >= 1 && tokens <= block, "a block must hold tokens");
        });
        return 0;
    }
    paro::TokenLayout layout{fuzz::pick(bytes, 0, 90), fuzz::grid(bytes, 9), fuzz::pick(bytes, 0, 90)};
    const paro::AxisOrder order = fuzz::order(bytes);
    check_places(layout, order, fuzz::pick(bytes, 1, 130));
    check_orders(layout.grid);
    return 0;
}
