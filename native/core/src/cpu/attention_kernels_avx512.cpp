// AVX-512 F, BW, VL, DQ (Skylake-X and later).
#include "cpu/attention_kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "cpu/attention_kernels_avx512_vec.h"
#include "cpu/attention_kernels_fp32.h"
#include "cpu/attention_kernels_int8.h"

namespace paro::cpu {

const KernelTable* avx512_kernels() {
    static const KernelTable table = {attend_fp32<Vec>, attend_int8<Vec>, Vec::kGroup,
                                      kPanel<Vec>,      load_row<Vec>,    store_row<Vec>,
                                      prepare_row<Vec>, rotate_row<Vec>,  quantise_row<Vec>};
    return &table;
}

}  // namespace paro::cpu
#else
namespace paro::cpu {
const KernelTable* avx512_kernels() { return nullptr; }
}  // namespace paro::cpu
#endif
