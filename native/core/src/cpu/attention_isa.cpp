// Which instruction set runs, by what the processor has and the operating system saves.
#include <atomic>

#include "cpu/attention_kernels.h"
#include "paro/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#define PARO_X86_64
#endif

namespace paro {
namespace {

#if defined(PARO_X86_64)
struct CpuId {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuId cpu_id(std::uint32_t leaf) {
    CpuId id;
#if defined(_MSC_VER)
    int highest[4], regs[4];
    __cpuid(highest, 0);
    if (static_cast<std::uint32_t>(highest[0]) < leaf) return id;
    __cpuidex(regs, static_cast<int>(leaf), 0);
    id = {static_cast<std::uint32_t>(regs[0]), static_cast<std::uint32_t>(regs[1]), static_cast<std::uint32_t>(regs[2]),
          static_cast<std::uint32_t>(regs[3])};
#else
    if (!__get_cpuid_count(leaf, 0, &id.eax, &id.ebx, &id.ecx, &id.edx)) return {};
#endif
    return id;
}

// The register states that the operating system saves (XCR0).
std::uint64_t saved_states() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    std::uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (std::uint64_t{high} << 32) | low;
#endif
}

bool all(std::uint64_t value, std::uint64_t bits) { return (value & bits) == bits; }
constexpr std::uint64_t bit(int index) { return std::uint64_t{1} << index; }

bool cpu_has(Isa isa) {
    const CpuId basic = cpu_id(1), extended = cpu_id(7);
    if (!all(basic.ecx, bit(12) | bit(27) | bit(28) | bit(29))) return false;  // FMA, OSXSAVE, AVX, F16C
    const std::uint64_t states = saved_states();
    if (!all(states, 0x6) || !all(extended.ebx, bit(5))) return false;  // XMM and YMM; AVX2
    if (isa == Isa::avx2) return true;
    if (!all(states, 0xe6)) return false;  // opmask, upper halves of ZMM0-15, ZMM16-31
    if (!all(extended.ebx, bit(16) | bit(17) | bit(30) | bit(31))) return false;  // AVX-512 F, DQ, BW, VL
    return isa == Isa::avx512 || all(extended.ecx, bit(11));                      // VNNI
}
#else
bool cpu_has(Isa) { return false; }
#endif

const cpu::KernelTable* built(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return cpu::scalar_kernels();
        case Isa::avx2:
            return cpu::avx2_kernels();
        case Isa::avx512:
            return cpu::avx512_kernels();
        case Isa::avx512_vnni:
            return cpu::avx512_vnni_kernels();
    }
    return nullptr;
}

bool available(Isa isa) { return built(isa) && (isa == Isa::scalar || cpu_has(isa)); }

std::atomic<Isa>& current() {
    static std::atomic<Isa> isa = available_isas().back();
    return isa;
}

}  // namespace

std::vector<Isa> available_isas() {
    std::vector<Isa> result;
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni}) {
        if (available(isa)) result.push_back(isa);
    }
    return result;
}

Isa active_isa() { return current(); }

void set_isa(Isa isa) {
    require(available(isa), "isa", "must be one that this processor and build offer", to_string(isa));
    current() = isa;
}

std::string_view to_string(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return "scalar";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_vnni:
            return "avx512_vnni";
    }
    return "unknown";
}

const cpu::KernelTable& cpu::active_kernels() { return *built(active_isa()); }

}  // namespace paro
