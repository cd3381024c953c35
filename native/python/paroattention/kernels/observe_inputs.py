"""Arguments of what observes, meters and masks: checks, and tensors as the kernels read them."""

from __future__ import annotations

import functools
import math

import torch

from .. import _core
from ..layout import TokenLayout
from ..limits import DTYPES, MAX_QUERIES, one_of
from . import cuda
from . import observe_torch as plain
from .head_orders import FoundMasks


def check_tensor(name: str, x, like: torch.Tensor | None = None) -> None:
    if not isinstance(x, torch.Tensor):
        raise _core.Error(f"{name} must be a tensor (got {type(x).__name__})")
    if x.dim() != 4 or 0 in x.shape:
        raise _core.Error(f"{name} must have the shape (B, H, N, D) (got {tuple(x.shape)})")
    if x.dtype not in DTYPES:
        raise _core.Error(f"{name} must be {one_of(DTYPES.values())} (got {x.dtype})")
    for what in ("shape", "dtype", "device") if like is not None else ():
        got, want = getattr(x, what), getattr(like, what)
        if got != want:
            raise _core.Error(f"{name} must have the {what} of q, {want} (got {got})")


def check_layout(q: torch.Tensor, layout: TokenLayout) -> None:
    if min(layout.grid) < 1 or layout.prefix < 0 or layout.suffix < 0:
        rule = "must have sides of 1 and more, and no negative prefix or suffix"
        raise _core.Error(f"layout {rule} (got {layout})")
    if q.shape[2] != layout.length:
        raise _core.Error(f"q must hold the layout's {layout.length} tokens (got {q.shape[2]})")


def check_scale(scale: float) -> float:
    if not (math.isfinite(scale) and scale > 0):
        raise _core.Error(f"sm_scale must be finite and above 0 (got {scale})")
    return float(scale)


def sampled_queries(queries, q: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
    """queries as int32 (H, n) on the device of q; the values are checked on a CPU only."""
    if not isinstance(queries, torch.Tensor) or queries.dtype not in (torch.int32, torch.int64):
        got = queries.dtype if isinstance(queries, torch.Tensor) else type(queries).__name__
        raise _core.Error(f"queries must be an int32 or int64 tensor (got {got})")
    if queries.dim() != 2 or queries.shape[0] != q.shape[1]:
        rule = f"must have the shape (H, n) with H = {q.shape[1]}"
        raise _core.Error(f"queries {rule} (got {tuple(queries.shape)})")
    if not 1 <= queries.shape[1] <= MAX_QUERIES:
        rule = f"must hold 1 to {MAX_QUERIES} queries a head"
        raise _core.Error(f"queries {rule} (got {queries.shape[1]})")
    if queries.device.type == "cpu":
        low, high = (int(x) for x in torch.aminmax(queries))
        if low < 0 or high >= layout.grid_size:
            rule = f"must be grid places, 0 to {layout.grid_size - 1}"
            raise _core.Error(f"queries {rule} (got {low} to {high})")
        return to_device(queries.to(torch.int32).contiguous(), q.device)
    return queries.to(q.device, torch.int32).contiguous()


def check_plan(name: str, plan, kind, q: torch.Tensor, layout=None) -> TokenLayout:
    """The plan's layout, checked against q and, if given, `layout`. kind: as of isinstance."""
    if not isinstance(plan, kind):
        wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise _core.Error(f"{name} must be a {wanted} (got {type(plan).__name__})")
    own = TokenLayout(tuple(plan.grid), plan.prefix, plan.suffix)
    if layout is not None and layout != own:
        raise _core.Error(f"{name} must be made for the layout {layout} (got {own})")
    if q.shape[1] != plan.head_count:
        raise _core.Error(f"q must hold the plan's {plan.head_count} heads (got {q.shape[1]})")
    check_layout(q, own)
    return own


def half(x: torch.Tensor) -> torch.Tensor:
    """x as the kernels read it: 16 bits an element, 16 bytes at a time."""
    return cuda.aligned(x.to(torch.bfloat16) if x.dtype == torch.float32 else x)


def grid_numbers(layout: TokenLayout) -> tuple[int, ...]:
    return (layout.prefix, *layout.grid, layout.suffix)


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """x, from a CPU, without waiting for the device: from pageable memory torch would."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


@functools.lru_cache(maxsize=1024)
def numbers_on(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return to_device(torch.tensor(values, dtype=torch.int32), device)


def orders_on(orders, device: torch.device) -> torch.Tensor:
    """The heads' orders, by name, as the kernels number them: int32 (H) on a device."""
    return numbers_on(tuple(map(_core.ORDERS.index, orders)), device)


@functools.lru_cache(maxsize=64)
def tables_on(edges: tuple, grid: tuple[int, int, int], device: torch.device):
    """(the bin of every offset by axis, int64; all of them in a row, int32) on a device."""
    tables = plain.axis_tables(edges, grid)
    flat = torch.cat(tables).to(torch.int32)
    return tuple(to_device(table, device) for table in tables), to_device(flat, device)


def masks_of(plan) -> torch.Tensor:
    """bool [H, rows, cols]: on the device of found masks, of a Plan on the CPU."""
    if isinstance(plan, FoundMasks):
        return plain.unpack_bits(plan.masks, plan.cols)
    return torch.stack([torch.from_numpy(head.mask.numpy()) for head in plan.heads])
