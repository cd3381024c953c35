#include "attention_portable_int8.cuh"

namespace paro::cuda {

PARO_INT8_INSTANCES(128)
PARO_INT8_NARROW_INSTANCES(128)

}  // namespace paro::cuda
