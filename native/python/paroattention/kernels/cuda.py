"""The CUDA kernels from Python: whether there are any, plans on the device, dispatch.

torch.ops.paro.attention(q, k, v, plan, prefix, grid_f, grid_h, grid_w, suffix, block_q, block_kv,
sm_scale, precision, tail, path): `plan` is `upload(...)`, the seven numbers after it are
`layout(plan)`, precision and path are the values of PRECISIONS and PATHS. Its overload `broken`
takes one argument more, an int32 tensor of one element as in `attention`. Both can be compiled with
fullgraph and captured in a CUDA graph, where the plan has been uploaded before.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch

from .. import _core
from ..limits import DTYPES
from . import operators, plan_store, trust
from .head_orders import FoundMasks

PRECISIONS = {"int8": 0, "bf16": 1}
PATHS = {"auto": 0, "portable": 1, "hopper": 2, "narrow": 3}
LIBRARY = Path(_core.__file__).with_name("_torch_ops.dll" if os.name == "nt" else "_torch_ops.so")

_lock = threading.Lock()
_missing: str | None = None
_loaded = False


def load() -> str | None:
    """Loads the operators once; None, or why there are none."""
    global _loaded, _missing
    with _lock:
        if _loaded:
            return _missing
        _loaded = True
        if not LIBRARY.exists():
            _missing = "this build has no CUDA kernels (PARO_BUILD_CUDA was off)"
            return _missing
        try:
            operators.load(LIBRARY)
        except (OSError, RuntimeError) as error:
            _missing = f"the CUDA kernels do not load: {str(error).splitlines()[0][:200]}"
        return _missing


def preferred_tile(device: torch.device | str, precision: str = "int8") -> int:
    """Side of the square tiles that plans for a device should have: 64, or 128 where the kernels
    are so much faster with it that a lower density costs less than the coarser masks (INT8 on
    sm_90a: a dense tile takes 0.7 of the time).
    """
    device = torch.device(device)
    if device.type != "cuda" or load() is not None:
        return 64
    wide = precision == "int8" and torch.cuda.get_device_capability(device) == (9, 0)
    first, second = (128, 64) if wide else (64, 128)
    if trust.every_head_dim(device, precision, first):
        return first
    return second if trust.every_head_dim(device, precision, second) else first


def _trusted(path: str, q: torch.Tensor, precision: str, plan) -> str:
    """The path, in place of "auto" that which the self-test of this GPU found right."""
    if path != "auto":
        return path
    return trust.path(q.device, precision, q.shape[-1], (plan.block_q, plan.block_kv)) or path


def layout(plan: _core.Plan) -> tuple[int, ...]:
    """prefix, grid_f, grid_h, grid_w, suffix, block_q, block_kv: as the operators want them."""
    return (plan.prefix, *plan.grid, plan.suffix, plan.block_q, plan.block_kv)


def upload(plan: _core.Plan, device: torch.device) -> torch.Tensor:
    """The plan's int32 words on a device; kept there as long as the plan.

    For who keeps plans on the device on purpose, CUDA graphs above all. Other plans come and go, a
    few at a time (plan_store.py).
    """
    return plan_store.store(device).keep(plan)


def words(plan, device: torch.device, *, aside: bool = False) -> torch.Tensor:
    """The plan's words for work queued next: those of found masks, else what the device's store
    holds. aside: that work is not the plan's own call, as metering is; what comes next on its way
    to the device stays so."""
    if isinstance(plan, FoundMasks):
        return plan.words
    store = plan_store.store(device)
    if torch.cuda.is_current_stream_capturing():
        # A graph replays with the address that it saw: its plan must stay where it is.
        return store.keep(plan)
    return store.aside(plan) if aside else store.words(plan)


def aligned(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy where the kernels cannot read 16 bytes at a time."""
    step = 16 // x.element_size()
    fits = x.stride(-1) == 1 and x.data_ptr() % 16 == 0
    fits = fits and all(
        side == 1 or stride % step == 0
        for side, stride in zip(x.shape[:3], x.stride()[:3], strict=True)
    )
    return x if fits else x.contiguous()


def run(op, *args):
    """An operator's result. Error where it refuses its arguments, torch.OutOfMemoryError."""
    try:
        return op(*args)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _core.Error(str(error)) from error


def _run_attention(op, broken: torch.Tensor | None, *args) -> torch.Tensor:
    return run(op.default, *args) if broken is None else run(op.broken, *args, broken)


def attention(
    q,
    k,
    v,
    plan,
    *,
    sm_scale: float,
    precision: str,
    tail: bool,
    path: str = "auto",
    broken: torch.Tensor | None = None,
):
    """As paroattention.attention, which has checked the arguments, on the device of q."""
    dtype, path = q.dtype, _trusted(path, q, precision, plan)
    if precision != "int8" and dtype == torch.float32:
        q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    q, k, v = (aligned(x) for x in (q, k, v))
    out = _run_attention(
        torch.ops.paro.attention,
        broken,
        q,
        k,
        v,
        words(plan, q.device),
        *layout(plan),
        sm_scale,
        PRECISIONS["int8" if precision == "int8" else "bf16"],
        tail,
        PATHS[path],
    )
    return out.to(dtype)


def attention_releasing(
    tensors: list,
    plan,
    *,
    sm_scale=None,
    tail=True,
    path="auto",
    broken: torch.Tensor | None = None,
):
    """int8 attention of tensors = [q, k, v], letting go of each once it is packed.

    broken as in paroattention.attention. Entries of the list become None as they are packed; where
    nothing was packed yet an error leaves it as it is. Where the caller holds no other reference
    the peak is q, k, v and half of q in bf16, instead of q, k, v, their packed form and o.
    """
    batch, heads, _, head_dim = tensors[0].shape
    device, path = tensors[0].device, _trusted(path, tensors[0], "int8", plan)
    dtype, scale = list(DTYPES).index(tensors[0].dtype), float(sm_scale or head_dim**-0.5)
    on_device, sizes, ops = words(plan, device), layout(plan), torch.ops.paro
    queries = run(ops.pack_queries.default, aligned(tensors[0]), on_device, *sizes, scale)
    tensors[0] = None
    keys = _pack_keys(tensors, on_device, sizes, tail)
    shape = (batch, heads, head_dim)
    return _run_attention(
        ops.attention_packed,
        broken,
        queries,
        keys,
        on_device,
        *shape,
        *sizes,
        dtype,
        tail,
        PATHS[path],
    )


def _pack_keys(tensors: list, on_device: torch.Tensor, sizes: tuple, tail: bool) -> torch.Tensor:
    """Packs tensors[1:], k and v, and lets go of them.

    Memory for q, which is gone, would be enough for their packed form if it were in one piece. If
    it is not, k and v go to the host and come back to where there is room.
    """
    device, away = tensors[1].device, None
    try:
        return _packed_keys(tensors, on_device, sizes, tail)
    except torch.OutOfMemoryError:
        away = [x.cpu() for x in tensors[1:]]
        tensors[1:] = [None, None]
    # Not before the error is gone, whose frames hold k and v.
    torch.cuda.empty_cache()
    tensors[1:] = [x.to(device) for x in away]
    return _packed_keys(tensors, on_device, sizes, tail)


def _packed_keys(tensors: list, on_device, sizes, tail) -> torch.Tensor:
    k, v = (aligned(x) for x in tensors[1:])
    keys = run(torch.ops.paro.pack_keys.default, k, v, on_device, *sizes, tail)
    tensors[1:] = [None, None]
    return keys
