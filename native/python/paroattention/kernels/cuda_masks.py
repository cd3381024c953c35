"""Masks that a call finds for itself, from pooled queries and keys, in its heads' orders."""

from __future__ import annotations

import functools

import torch

from .. import _core
from . import capability, cuda, observe_inputs
from . import observe_torch as plain
from .head_orders import FoundMasks, HeadOrders


@functools.lru_cache(maxsize=256)
def _densities_on(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    for head, value in enumerate(values):
        if not 0.0 < value <= 1.0:
            rule = "must be above 0 and at most 1"
            raise _core.Error(f"heads[{head}].density {rule} (got {value})")
    return observe_inputs.to_device(torch.tensor(values, dtype=torch.float32), device)


@torch.no_grad()
def find_masks(
    q: torch.Tensor, k: torch.Tensor, heads: HeadOrders, sm_scale: float | None = None
) -> FoundMasks | _core.Plan:
    """The masks of one call: what paroattention.attention takes as its plan.

    q, k: (B, H, N, D). Blocks are scored by softmax(pooled q . pooled k) over grid key blocks, the
    mean over the batch. Each row keeps the share of its blocks that is the head's density, at least
    one; ties go to the lower index. Prefix and suffix are always computed.
    FoundMasks where a kernel finds them, without waiting for the GPU; else a Plan.
    """
    observe_inputs.check_tensor("q", q)
    observe_inputs.check_tensor("k", k, q)
    layout = observe_inputs.check_plan("heads", heads, HeadOrders, q)
    scale = observe_inputs.check_scale(q.shape[-1] ** -0.5 if sm_scale is None else sm_scale)
    densities = _densities_on(heads.densities, q.device)
    tile = (heads.block_q, heads.block_kv)
    if capability.observed_in_torch(q, tile):
        scores = plain.block_scores(q, k, heads.orders, layout, tile, scale)
        return _plan(heads, plain.select(scores, densities))
    words = cuda.run(
        torch.ops.paro.dynamic_plan.default,
        cuda.aligned(q),
        cuda.aligned(k),
        observe_inputs.orders_on(heads.orders, q.device),
        densities,
        *cuda.layout(heads),
        scale,
    )
    return FoundMasks(heads.layout, heads.heads, *tile, words)


def host_plan(found: FoundMasks | _core.Plan) -> _core.Plan:
    """The Plan that find_masks's result stands for. Waits for a GPU."""
    if isinstance(found, _core.Plan):
        return found
    return _plan(found, observe_inputs.masks_of(found))


def _plan(heads: HeadOrders, masks: torch.Tensor) -> _core.Plan:
    """A Plan with these masks, bool [H, rows, cols]. Waits for a GPU."""
    found = [
        _core.HeadPlan(order, _core.BlockMask(mask))
        for order, mask in zip(heads.orders, masks.cpu().numpy(), strict=True)
    ]
    return heads.layout.plan(found, heads.block_q, heads.block_kv)
