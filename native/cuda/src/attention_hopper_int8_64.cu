#include "attention_hopper_int8.cuh"

namespace paro::cuda {

PARO_HOPPER_INSTANCES(64)

}  // namespace paro::cuda
