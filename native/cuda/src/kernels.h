// The kernels that host code launches, by name. Their objects are generated from the compiled device code
// (embed_kernels.py), so that a kernel which is not in every image fails the link.
#pragma once

#include "launch_kernel.h"
#include "paro/cuda/params.h"

// PARO_KERNELS(DQK, name) declares kernels::name_d64_q64_k64 and its siblings, and kernels::name(p), which chooses one
// for a call. Parts of names, in this order: T dtype, or H dtype but for f32; D head_dim; Q block_q; K block_kv.
#define PARO_EACH(name) extern Kernel name;
#define PARO_EACH_K(name) PARO_EACH(name##_k64) PARO_EACH(name##_k128)
#define PARO_EACH_QK(name) PARO_EACH_K(name##_q64) PARO_EACH_K(name##_q128)
#define PARO_EACH_D(name) PARO_EACH(name##_d64) PARO_EACH(name##_d128)
#define PARO_EACH_DK(name) PARO_EACH_K(name##_d64) PARO_EACH_K(name##_d128)
#define PARO_EACH_DQK(name) PARO_EACH_QK(name##_d64) PARO_EACH_QK(name##_d128)
#define PARO_EACH_HD(name) PARO_EACH_D(name##_f16) PARO_EACH_D(name##_bf16)
#define PARO_EACH_HDK(name) PARO_EACH_DK(name##_f16) PARO_EACH_DK(name##_bf16)
#define PARO_EACH_HDQK(name) PARO_EACH_DQK(name##_f16) PARO_EACH_DQK(name##_bf16)
#define PARO_EACH_TD(name) PARO_EACH_D(name##_f32) PARO_EACH_HD(name)
#define PARO_EACH_TDK(name) PARO_EACH_DK(name##_f32) PARO_EACH_HDK(name)

#define PARO_PICK_K(name) (p.kv_blocks.block == 64 ? name##_k64 : name##_k128)
#define PARO_PICK_QK(name) (p.q_blocks.block == 64 ? PARO_PICK_K(name##_q64) : PARO_PICK_K(name##_q128))
#define PARO_PICK_D(name) (p.head_dim == 64 ? name##_d64 : name##_d128)
#define PARO_PICK_DK(name) (p.head_dim == 64 ? PARO_PICK_K(name##_d64) : PARO_PICK_K(name##_d128))
#define PARO_PICK_DQK(name) (p.head_dim == 64 ? PARO_PICK_QK(name##_d64) : PARO_PICK_QK(name##_d128))
#define PARO_PICK_HD(name) (p.dtype == DType::f16 ? PARO_PICK_D(name##_f16) : PARO_PICK_D(name##_bf16))
#define PARO_PICK_HDK(name) (p.dtype == DType::f16 ? PARO_PICK_DK(name##_f16) : PARO_PICK_DK(name##_bf16))
#define PARO_PICK_HDQK(name) (p.dtype == DType::f16 ? PARO_PICK_DQK(name##_f16) : PARO_PICK_DQK(name##_bf16))
#define PARO_PICK_TD(name) (p.dtype == DType::f32 ? PARO_PICK_D(name##_f32) : PARO_PICK_HD(name))
#define PARO_PICK_TDK(name) (p.dtype == DType::f32 ? PARO_PICK_DK(name##_f32) : PARO_PICK_HDK(name))

#define PARO_KERNEL_ALONE(name) \
    namespace kernels {         \
    PARO_EACH(name)             \
    }
#define PARO_KERNELS(parts, name)                                                                             \
    namespace kernels {                                                                                       \
    PARO_EACH_##parts(name) inline Kernel& name(const AttentionParams& p) { return PARO_PICK_##parts(name); } \
    }
