"""Masks found on the fly from pooled queries and keys, in a plan's orders."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from .. import _core
from . import cuda, observe_inputs
from . import observe_torch as plain
from .attention import attention
from .head_orders import FoundMasks, HeadOrders


@functools.lru_cache(maxsize=256)
def _targets(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return observe_inputs.to_device(torch.tensor(values, dtype=torch.float32), device)


def _check_targets(name: str, value, heads: int) -> tuple[float, ...]:
    same = isinstance(value, (int, float))
    values = (float(value),) * heads if same else tuple(map(float, value))
    if len(values) != heads:
        raise _core.Error(f"{name} must be one number, or one per head (got {len(values)})")
    for one in values:
        if not 0.0 < one <= 1.0:
            raise _core.Error(f"{name} must be above 0 and at most 1 (got {one})")
    return values


def _words_of(plan, device: torch.device) -> torch.Tensor:
    """A plan's words, of which the operator reads the orders; where there is nothing but those,
    the rest is memory for the time of the call."""
    if isinstance(plan, _core.Plan):
        return cuda.upload(plan, device)
    heads, width = plan.head_count, -(-plan.cols // 32)
    count = heads * (1 + plan.rows * (1 + width))
    words = torch.empty(count, dtype=torch.int32, device=device)
    words[:heads] = observe_inputs.orders_on(plan, device)
    return words


def _found(q, k, plan, density, mass, sm_scale) -> tuple[torch.Tensor | None, torch.Tensor]:
    """(words of a plan, or None in plain torch; its masks) of checked q and k."""
    observe_inputs.check_tensor("q", q)
    observe_inputs.check_tensor("k", k, q)
    own = observe_inputs.check_plan(plan, q, None)
    if (density is None) == (mass is None):
        raise _core.Error(f"density or mass must be given, not both (got {density} and {mass})")
    name, value = ("density", density) if mass is None else ("mass", mass)
    targets = _targets(_check_targets(name, value, q.shape[1]), q.device)
    scale = observe_inputs.check_scale(sm_scale or q.shape[-1] ** -0.5)
    tile = (plan.block_q, plan.block_kv)
    if not (observe_inputs.tiles_fit(tile) and observe_inputs.kernels_refuse(q) is None):
        p = plain.block_scores(q, k, observe_inputs.orders_of(plan), own, tile, scale)
        return None, plain.pack_bits(plain.select(p, targets, by_mass=mass is not None))
    words, counts = cuda.run(
        torch.ops.paro.dynamic_plan.default,
        cuda.aligned(q),
        cuda.aligned(k),
        _words_of(plan, q.device),
        targets,
        *cuda.layout(plan),
        scale,
        mass is not None,
    )
    heads, rows = counts.shape
    return words, words[heads * (1 + rows) :].view(heads, rows, -1)


@torch.no_grad()
def dynamic_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    plan,
    *,
    density: float | Sequence[float] | None = None,
    mass: float | Sequence[float] | None = None,
    sm_scale: float | None = None,
) -> torch.Tensor:
    """Masks for these q and k in the plan's orders and tile: int32 words (H, rows, words).

    plan: a Plan, whose own masks do not matter, or HeadOrders.
    Blocks are scored by softmax(pooled q . pooled k) over grid key blocks, the mean over the batch.
    density: that share of each row's blocks, at least one; mass: the fewest blocks whose share of
    the row's scores reaches it. One number, or one per head. Ties go to the lower index. Bit c % 32
    of word c / 32: grid key block c is computed; prefix and suffix always are. Does not wait for
    the device.
    """
    return _found(q, k, plan, density, mass, sm_scale)[1]


@torch.no_grad()
def dynamic_plan(
    q: torch.Tensor,
    k: torch.Tensor,
    plan,
    *,
    density: float | Sequence[float] | None = None,
    mass: float | Sequence[float] | None = None,
    sm_scale: float | None = None,
) -> torch.Tensor:
    """As dynamic_mask: a plan's words on the device with those masks, in the plan's orders.

    What torch.ops.paro.attention wants as `plan`; rows are scheduled longest first.
    """
    words, masks = _found(q, k, plan, density, mass, sm_scale)
    return with_masks(plan, masks) if words is None else words


@torch.no_grad()
def dynamic_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan,
    *,
    density: float | Sequence[float] | None = None,
    mass: float | Sequence[float] | None = None,
    sm_scale: float | None = None,
    precision: str = "int8",
    tail: bool = True,
) -> torch.Tensor:
    """paroattention.attention over the blocks that dynamic_mask finds, in the plan's orders."""
    observe_inputs.check_tensor("q", q)
    observe_inputs.check_tensor("v", v, q)
    if precision not in cuda.PRECISIONS:
        raise _core.Error(f"precision must be int8 or bf16 (got {precision!r})")
    words, masks = _found(q, k, plan, density, mass, sm_scale)
    if words is None:
        own = _with_host_masks(plan, masks)
        return attention(q, k, v, own, sm_scale=sm_scale, precision=precision, tail=tail)
    ready = cuda.aligned if precision == "int8" else observe_inputs.half
    out = cuda.run(
        torch.ops.paro.attention.default,
        *(ready(x) for x in (q, k, v)),
        words,
        *cuda.layout(plan),
        float(sm_scale or q.shape[-1] ** -0.5),
        cuda.PRECISIONS[precision],
        bool(tail),
        cuda.PATHS["auto"],
    )
    return out.to(q.dtype)


@torch.no_grad()
def find_masks(q: torch.Tensor, k: torch.Tensor, heads: HeadOrders, sm_scale: float | None = None):
    """The masks of one call at each head's density, as dynamic_mask finds them: what
    paroattention.attention takes as its plan. FoundMasks on a GPU, without waiting; else a Plan.
    """
    words, masks = _found(q, k, heads, heads.densities, None, sm_scale)
    if not _attends(q):
        return _with_host_masks(heads, masks)
    if words is None:
        words = with_masks(heads, masks)
    return FoundMasks(heads.layout, heads.heads, heads.block_q, heads.block_kv, words)


def _attends(q: torch.Tensor) -> bool:
    """Whether kernels on the device of q take masks where they were found."""
    return q.device.type == "cuda" and cuda.unsupported(q) is None


def host_plan(found) -> _core.Plan:
    """The Plan that find_masks's result stands for. Waits for a GPU."""
    if isinstance(found, _core.Plan):
        return found
    return _with_host_masks(found, found.masks)


def _with_host_masks(plan, masks: torch.Tensor) -> _core.Plan:
    """A Plan with these masks. Waits."""
    cols = -(-plan.grid[0] * plan.grid[1] * plan.grid[2] // plan.block_kv)
    bits = plain.unpack_bits(masks.cpu(), cols).numpy()
    heads = [
        _core.HeadPlan(order, _core.BlockMask(mask))
        for order, mask in zip(observe_inputs.orders_of(plan), bits, strict=True)
    ]
    return _core.Plan(
        plan.grid,
        prefix=plan.prefix,
        suffix=plan.suffix,
        block_q=plan.block_q,
        block_kv=plan.block_kv,
        heads=heads,
    )


def with_masks(plan, masks: torch.Tensor) -> torch.Tensor:
    """The plan's words on the device of `masks`: its orders with these masks, longest rows first.

    plan: a Plan, whose own masks do not matter, or HeadOrders.
    """
    size = plan.grid[0] * plan.grid[1] * plan.grid[2]
    rows, cols = -(-size // plan.block_q), -(-size // plan.block_kv)
    if masks.dtype != torch.int32 or masks.shape != (plan.head_count, rows, -(-cols // 32)):
        raise _core.Error(f"masks must be dynamic_mask's of this plan (got {tuple(masks.shape)})")
    schedule = torch.argsort(row_counts(masks), dim=1, descending=True, stable=True)
    orders = observe_inputs.orders_on(plan, masks.device)
    return torch.cat([orders, schedule.flatten().to(torch.int32), masks.flatten()])


def row_counts(masks: torch.Tensor) -> torch.Tensor:
    """Blocks computed in each mask row, int64 (H, rows)."""
    return plain.unpack_bits(masks, masks.shape[-1] * 32).sum(-1)
