#include "attention_hopper_int8.cuh"

namespace paro::cuda {

PARO_HOPPER_INSTANCES(128)

}  // namespace paro::cuda
