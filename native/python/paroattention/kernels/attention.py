"""attention(q, k, v, plan): the checked entry to the native kernels."""

from __future__ import annotations

import math

import torch

from .. import _core
from ..limits import DTYPES
from . import cuda
from .capability import unsupported
from .head_orders import FoundMasks

# What the user's precision computes as on a CPU: "bf16" is the unquantised mode.
CPU_PRECISION = {"int8": "int8", "bf16": "fp32", "fp32": "fp32"}


def _check(name: str, x: torch.Tensor, like: torch.Tensor) -> None:
    if not isinstance(x, torch.Tensor):
        raise _core.Error(f"{name} must be a tensor (got {type(x).__name__})")
    if x.dim() != 4:
        raise _core.Error(f"{name} must have the shape (B, H, N, D) (got {tuple(x.shape)})")
    for what, got, want in (
        ("shape", tuple(x.shape), tuple(like.shape)),
        ("dtype", x.dtype, like.dtype),
        ("device", x.device, like.device),
    ):
        if got != want:
            raise _core.Error(f"{name} must have the {what} of q, {want} (got {got})")


def _check_broken(broken: torch.Tensor | None, q: torch.Tensor) -> None:
    if broken is None:
        return
    if not isinstance(broken, torch.Tensor) or broken.dtype != torch.int32 or broken.numel() != 1:
        got = broken
        if isinstance(broken, torch.Tensor):
            got = f"{broken.dtype} {tuple(broken.shape)}"
        raise _core.Error(f"broken must be an int32 tensor of one element (got {got})")
    if broken.device != q.device:
        raise _core.Error(f"broken must be on q's device, {q.device} (got {broken.device})")


def _readable(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy where the kernels cannot step through it: D apart, or expanded (stride 0)."""
    sides = zip(x.stride()[:3], x.shape[:3], strict=True)
    steps = all(side == 1 or stride >= x.shape[-1] for stride, side in sides)
    return x if x.stride(-1) == 1 and steps else x.contiguous()


def _view(x: torch.Tensor) -> tuple[int, int, int, int]:
    return (x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: _core.Plan,
    *,
    sm_scale: float | None = None,
    precision: str = "int8",
    tail: bool = True,
    threads: int | None = None,
    path: str = "auto",
    broken: torch.Tensor | None = None,
) -> torch.Tensor:
    """o = softmax(q k^T sm_scale) v over the plan's blocks, tokens in their original order.

    q, k, v: (B, H, N, D), any strides (D contiguous saves a copy), float32, float16 or bfloat16,
    on a CPU or a CUDA GPU of compute capability 8.0 and newer.
    N must be plan.length and H the plan's heads. sm_scale defaults to 1/sqrt(D). precision:
    "int8", or "bf16" (unquantised; fp32 on a CPU). plan: a Plan, or what cuda_masks.find_masks
    found for this q and k. tail adds one pooled term per skipped key
    block. path: "auto", or on a GPU "portable", "hopper", or "narrow", the portable kernel for GPUs
    with little shared memory (head_dim 128, block_q 64). broken: an int32 tensor of one element on
    q's device; given, output that is not finite becomes 0 and broken then 1, else it stays as it
    is, and nothing waits for the device. Returns (B, H, N, D) of q's dtype, a view of contiguous
    (B, N, H, D) memory.
    Raises Error (a ValueError) naming the argument, the rule and the value received.
    """
    _check("q", q, q)
    _check("k", k, q)
    _check("v", v, q)
    if precision not in CPU_PRECISION:
        raise _core.Error(f"precision must be int8 or bf16 (got {precision!r})")
    on_device = q.device.type == "cuda" and isinstance(plan, FoundMasks)
    if not (on_device or isinstance(plan, _core.Plan)):
        raise _core.Error(f"plan must be a Plan (got {type(plan).__name__})")
    # A path that is named is wanted as it is, by the self-test above all.
    reason = unsupported(q, plan, precision if path == "auto" else "")
    if reason:
        raise _core.Error(f"q and plan must be what a kernel can take (got: {reason})")
    if sm_scale is not None and not (math.isfinite(sm_scale) and sm_scale > 0):
        raise _core.Error(f"sm_scale must be finite and above 0 (got {sm_scale})")
    batch, heads, length, head_dim = q.shape
    if length != plan.length:
        raise _core.Error(f"q must hold plan.length = {plan.length} tokens (got {length})")
    if heads != plan.head_count:
        raise _core.Error(f"q must hold the plan's {plan.head_count} heads (got {heads})")
    if path not in cuda.PATHS:
        raise _core.Error(f"path must be one of {', '.join(cuda.PATHS)} (got {path!r})")
    _check_broken(broken, q)
    scale = float(sm_scale or head_dim**-0.5)
    if q.device.type == "cuda":
        options = {"precision": precision, "tail": tail, "path": path, "broken": broken}
        return cuda.attention(q, k, v, plan, sm_scale=scale, **options)
    if path != "auto":
        raise _core.Error(f"path must be auto on a CPU (got {path!r})")
    q, k, v = (_readable(x) for x in (q, k, v))
    o = torch.empty((batch, length, heads, head_dim), dtype=q.dtype).permute(0, 2, 1, 3)
    _core.attention_cpu(
        _view(q),
        _view(k),
        _view(v),
        _view(o),
        dtype=DTYPES[q.dtype],
        batch=batch,
        heads=heads,
        head_dim=head_dim,
        plan=plan,
        sm_scale=scale,
        precision=CPU_PRECISION[precision],
        tail=tail,
        threads=threads or torch.get_num_threads(),
    )
    if broken is not None and not torch.isfinite(o).all():
        broken.fill_(1)
        torch.nan_to_num_(o, nan=0.0, posinf=0.0, neginf=0.0)
    return o


def attention_letting_go(
    tensors: list, plan, *, sm_scale: float, tail: bool, broken: torch.Tensor | None = None
) -> torch.Tensor:
    """attention(*tensors, plan, precision="int8") of [q, k, v] that the caller gives up.

    On a CUDA GPU each entry becomes None once it is packed, so that the memory of a tensor that
    nobody else holds is free before the output is made. An error before that leaves the list whole.
    """
    q, k, v = tensors
    if q.device.type != "cuda":
        return attention(q, k, v, plan, sm_scale=sm_scale, tail=tail, broken=broken)
    _check("q", q, q)
    _check("k", k, q)
    _check("v", v, q)
    if q.shape[1:3] != (plan.head_count, plan.length):
        rule = f"the plan's {plan.head_count} heads and {plan.length} tokens"
        raise _core.Error(f"q must have {rule} (got {tuple(q.shape)})")
    del q, k, v
    return cuda.attention_releasing(tensors, plan, sm_scale=sm_scale, tail=tail, broken=broken)
