// The function of ptx_hopper_half.cuh on a CPU.
#pragma once

#include "emulated_hopper.h"

namespace paro::cuda {

template <class T>
void multiply_half_now(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate) {
    struct In {
        std::uint32_t a[4];
        std::uint64_t b;
    } in{{a[0], a[1], a[2], a[3]}, b};
    float product[32];
    emulator::group_operation(
        &in, sizeof(in), product, sizeof(product), [](const unsigned char(*all)[128], unsigned char(*out)[256]) {
            static float left[64][16], right[64][16];
            const In first = emulator::read<In>(all[0]);
            for (int row = 0; row < 64; ++row) {
                for (int k = 0; k < 16; ++k) {
                    const In from = emulator::read<In>(all[row / 16 * 32 + row % 8 * 4 + k % 8 / 2]);
                    const std::uint32_t word = from.a[k / 8 * 2 + row % 16 / 8];
                    const auto bits = static_cast<std::uint16_t>(word >> (16 * (k % 2)));
                    left[row][k] = static_cast<float>(std::bit_cast<T>(bits));
                    const auto low = static_cast<std::uint8_t>(descriptor_byte(first.b, row, 2 * k));
                    const auto high = static_cast<std::uint8_t>(descriptor_byte(first.b, row, 2 * k + 1));
                    right[row][k] = static_cast<float>(std::bit_cast<T>(static_cast<std::uint16_t>(low | high << 8)));
                }
            }
            for (int lane = 0; lane < 128; ++lane) {
                for (int r = 0; r < 32; ++r) {
                    const int row = lane / 32 * 16 + lane % 32 / 4 + r % 4 / 2 * 8;
                    const int col = r / 4 * 8 + lane % 4 * 2 + r % 2;
                    float sum = 0.0f;
                    for (int k = 0; k < 16; ++k) sum += left[row][k] * right[col][k];
                    std::memcpy(out[lane] + 4 * r, &sum, 4);
                }
            }
        });
    for (int r = 0; r < 32; ++r) d[r / 4][r % 4] = (accumulate ? d[r / 4][r % 4] : 0.0f) + product[r];
}

template <class T>
void wgmma_half_rs(float (&d)[8][4], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate) {
    if (!emulator::late_products) return multiply_half_now<T>(d, a, b, accumulate);
    const std::array<std::uint32_t, 4> asked = {a[0], a[1], a[2], a[3]};
    emulator::multiply_later(reinterpret_cast<std::int32_t*>(&d[0][0]), 32, [=, &d, &a] {
        require(std::equal(asked.begin(), asked.end(), a), "operand", "must not be touched under way", a[0]);
        multiply_half_now<T>(d, a, b, accumulate);
    });
}

}  // namespace paro::cuda
