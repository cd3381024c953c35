// AVX-512 with VNNI (Cascade Lake, Ice Lake, Zen 4 and later).
#include "cpu/attention_kernels.h"

// MSVC has the intrinsics with /arch:AVX512 but no macro for them.
#if defined(__AVX512VNNI__) || (defined(_MSC_VER) && defined(__AVX512F__))
#define PARO_VNNI
#include "cpu/attention_kernels_avx512_vec.h"
#include "cpu/attention_kernels_fp32.h"
#include "cpu/attention_kernels_int8.h"

namespace paro::cpu {

const KernelTable* avx512_vnni_kernels() {
    static const KernelTable table = {attend_fp32<Vec>, attend_int8<Vec>, Vec::kGroup,
                                      kPanel<Vec>,      load_row<Vec>,    store_row<Vec>,
                                      prepare_row<Vec>, rotate_row<Vec>,  quantise_row<Vec>};
    return &table;
}

}  // namespace paro::cpu
#else
namespace paro::cpu {
const KernelTable* avx512_vnni_kernels() { return nullptr; }
}  // namespace paro::cpu
#endif
