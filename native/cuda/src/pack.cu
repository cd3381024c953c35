// The pack kernels by dtype, head_dim and block size.
#include "kernel.cuh"
#include "pack_keys.cuh"

namespace paro::cuda {

#define PARO_PACK_QUERIES(T, D)                               \
    PARO_KERNEL(paro_pack_queries_##T##_d##D, (kPackThreads), \
                (const __grid_constant__ AttentionParams p, std::int32_t sums), pack_queries_body<T, D>(p, sums))
PARO_PACK_QUERIES(f32, 64)
PARO_PACK_QUERIES(f32, 128)
PARO_PACK_QUERIES(f16, 64)
PARO_PACK_QUERIES(f16, 128)
PARO_PACK_QUERIES(bf16, 64)
PARO_PACK_QUERIES(bf16, 128)

#define PARO_PACK_KEYS(T, D, K)                                             \
    PARO_KERNEL(paro_pack_keys_##T##_d##D##_k##K, (pack_key_threads(D, K)), \
                (const __grid_constant__ AttentionParams p), pack_keys_body<T, D, K>(p))
#define PARO_PACK_KEYS_OF(T) \
    PARO_PACK_KEYS(T, 64, 64) PARO_PACK_KEYS(T, 64, 128) PARO_PACK_KEYS(T, 128, 64) PARO_PACK_KEYS(T, 128, 128)
PARO_PACK_KEYS_OF(f32)
PARO_PACK_KEYS_OF(f16)
PARO_PACK_KEYS_OF(bf16)

#define PARO_PACK_POOLED(D, K)                                                                                       \
    PARO_KERNEL(paro_pack_pooled_d##D##_k##K, (pack_key_threads(D, K)), (const __grid_constant__ AttentionParams p), \
                pack_pooled_body<D, K>(p))
PARO_PACK_POOLED(64, 64)
PARO_PACK_POOLED(64, 128)
PARO_PACK_POOLED(128, 64)
PARO_PACK_POOLED(128, 128)

}  // namespace paro::cuda
