#include "attention_portable_bf16.cuh"

template void paro::cuda::attention_portable_bf16<64>(const AttentionParams& p, cudaStream_t stream);
