#include "attention_portable_int8.cuh"

namespace paro::cuda {

PARO_INT8_INSTANCES(64)

}  // namespace paro::cuda
