#include "attention_portable_bf16.cuh"

namespace paro::cuda {

PARO_HALF_INSTANCES(128)

}  // namespace paro::cuda
