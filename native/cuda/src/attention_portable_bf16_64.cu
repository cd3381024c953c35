#include "attention_portable_bf16.cuh"

namespace paro::cuda {

PARO_HALF_INSTANCES(64)

}  // namespace paro::cuda
