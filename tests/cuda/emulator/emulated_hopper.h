// The functions of ptx_hopper.cuh on a CPU.
#pragma once

#include <array>

#include "emulated_ptx.h"

namespace paro::cuda {

inline void barrier_init(std::uint32_t barrier, std::uint32_t count) { emulator::mbarrier_init(barrier, count); }
inline void fence_barrier_init() {}
inline void barrier_arrive(std::uint32_t barrier) { emulator::mbarrier_change(barrier, 1, 0); }
inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) { emulator::mbarrier_change(barrier, 1, bytes); }
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) { emulator::mbarrier_wait(barrier, parity); }
inline void copy_bulk(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
    require(bytes % 16 == 0 && to % 16 == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0, "copy_bulk",
            "must be on 16 bytes", bytes);
    require(to + bytes <= emulator::kSharedBytes, "copy_bulk", "must end in shared memory", to + bytes);
    emulator::copy_in_bulk(to, from, bytes, barrier);
}
inline void fence_async() {}
inline void named_sync(int id, int threads) { emulator::named_barrier(id, threads, true); }
inline void named_arrive(int id, int threads) { emulator::named_barrier(id, threads, false); }
template <int registers>
void decrease_registers() {}
template <int registers>
void increase_registers() {}
inline void wgmma_fence() {}
inline void wgmma_commit() {
    if (emulator::late_products) emulator::commit_products();
}
template <int pending>
void wgmma_wait() {
    if (emulator::late_products) emulator::wait_products(pending);
}

template <class T, int TILES>
void fence_registers(T (&)[TILES][4]) {}
inline void fence_schedule(std::int32_t) {}
inline std::uint32_t clock_now() { return 0; }

// Byte (row, byte) of what a descriptor names, as the tensor cores address it: the swizzle is on address bits.
inline std::int8_t descriptor_byte(std::uint64_t descriptor, int row, int byte) {
    const auto start = static_cast<std::uint32_t>(descriptor & 0x3fff) << 4;
    const auto stride = static_cast<std::uint32_t>((descriptor >> 32) & 0x3fff) << 4;
    const bool wide = descriptor >> 62 == 1;
    std::uint32_t at = start + row / 8 * stride + row % 8 * (stride / 8) + byte;
    at ^= ((at >> 7) & (wide ? 7 : 3)) << 4;
    return static_cast<std::int8_t>(*shared_pointer(at, 1));
}

template <int TILES, bool FROM_SHARED>
void multiply_now(std::int32_t (&d)[TILES][4], const std::uint32_t (&a)[4], std::uint64_t a_tile, std::uint64_t b,
                  bool accumulate) {
    struct In {
        std::uint32_t a[4];
        std::uint64_t a_tile, b;
    } in{{a[0], a[1], a[2], a[3]}, a_tile, b};
    constexpr int registers = TILES * 4;
    std::int32_t product[registers];
    emulator::group_operation(
        &in, sizeof(in), product, sizeof(product), [](const unsigned char(*all)[128], unsigned char(*out)[256]) {
            constexpr int columns = TILES * 8;
            static std::int32_t left[64][32], right[columns][32];
            const In first = emulator::read<In>(all[0]);
            for (int row = 0; row < 64; ++row) {
                for (int k = 0; k < 32; ++k) {
                    const int lane = row / 16 * 32 + row % 8 * 4 + k % 16 / 4;
                    const In from = emulator::read<In>(all[lane]);
                    const int word = k / 16 * 2 + row % 16 / 8;
                    left[row][k] = FROM_SHARED ? descriptor_byte(first.a_tile, row, k)
                                               : static_cast<std::int32_t>((from.a[word] >> (8 * (k % 4))) & 0xff);
                }
            }
            for (int col = 0; col < columns; ++col) {
                for (int k = 0; k < 32; ++k) {
                    const std::int32_t byte = descriptor_byte(first.b, col, k);
                    right[col][k] = FROM_SHARED ? byte : byte & 0xff;
                }
            }
            for (int lane = 0; lane < 128; ++lane) {
                for (int r = 0; r < registers; ++r) {
                    const int row = lane / 32 * 16 + lane % 32 / 4 + r % 4 / 2 * 8;
                    const int col = r / 4 * 8 + lane % 4 * 2 + r % 2;
                    std::int32_t sum = 0;
                    for (int k = 0; k < 32; ++k) sum += left[row][k] * right[col][k];
                    std::memcpy(out[lane] + 4 * r, &sum, 4);
                }
            }
        });
    for (int r = 0; r < registers; ++r) d[r / 4][r % 4] = (accumulate ? d[r / 4][r % 4] : 0) + product[r];
}

template <int TILES>
void wgmma_ss(std::int32_t (&d)[TILES][4], std::uint64_t a, std::uint64_t b, bool accumulate) {
    if (!emulator::late_products) return multiply_now<TILES, true>(d, {0, 0, 0, 0}, a, b, accumulate);
    emulator::multiply_later(&d[0][0], TILES * 4, [=, &d] {
        multiply_now<TILES, true>(d, {0, 0, 0, 0}, a, b, accumulate);
    });
}
template <int TILES>
void wgmma_rs(std::int32_t (&d)[TILES][4], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate) {
    if (!emulator::late_products) return multiply_now<TILES, false>(d, a, 0, b, accumulate);
    const std::array<std::uint32_t, 4> asked = {a[0], a[1], a[2], a[3]};
    emulator::multiply_later(&d[0][0], TILES * 4, [=, &d, &a] {
        require(std::equal(asked.begin(), asked.end(), a), "operand", "must not be touched under way", a[0]);
        multiply_now<TILES, false>(d, a, 0, b, accumulate);
    });
}

}  // namespace paro::cuda
