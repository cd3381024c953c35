#include "attention_hopper_int8.cuh"

template void paro::cuda::attention_hopper_int8<64>(const AttentionParams& p, cudaStream_t stream);
