"""How much work each head of a layer is, known from a profile before its plans are made."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..layout import TokenLayout
from ..settings import Settings

# What a head costs beside its blocks, as a share of all its blocks: packing, above all. On an H100
# Wan 14B's heads at 720p cost .039 (tail on), those of Wan 1.3B at 480p .066.
FIXED_SHARE = 0.04


def fixed_load(layout: TokenLayout, block_q: int, block_kv: int) -> int:
    """What any head costs beside the blocks of its mask: prefix and suffix, and packing."""
    rows, cols = (-(-layout.grid_size // side) for side in (block_q, block_kv))
    sides = layout.prefix, layout.suffix
    all_rows = rows + sum(-(-tokens // block_q) for tokens in sides)
    all_cols = cols + sum(-(-tokens // block_kv) for tokens in sides)
    return all_rows * all_cols - rows * cols + max(1, round(FIXED_SHARE * all_rows * all_cols))


def head_loads(
    densities: list[float],
    layout: TokenLayout,
    block_q: int,
    block_kv: int,
    *,
    by_row: bool = False,
) -> list[int]:
    """Blocks that heads of these densities compute, prefix and suffix counted, with what a head
    costs in any case.

    by_row: every row of a mask has the same number of blocks, as masks have that are found in
    every call.
    """
    rows, cols = (-(-layout.grid_size // side) for side in (block_q, block_kv))
    fixed = fixed_load(layout, block_q, block_kv)
    share = np.array(densities, dtype=np.float32).astype(np.float64)
    if by_row:
        blocks = rows * np.clip(np.floor(share * cols + 0.5), 1, cols)
    else:
        blocks = np.clip(np.floor(share * rows * cols + 0.5), rows, rows * cols)
    return [fixed + int(count) for count in blocks]


def layer_loads(
    layer: _core.ProfileLayer, density: float, layout: TokenLayout, settings: Settings
) -> list[int]:
    """head_loads of a profile's layer. density: of heads that have none of their own."""
    own = [density if head.density is None else head.density for head in layer.heads]
    tile = settings.block_q, settings.block_kv
    return head_loads(own, layout, *tile, by_row=settings.dynamic)


def plan_loads(plan) -> list[int]:
    """head_loads of a plan's heads (a Plan or a HeadOrders)."""
    layout = TokenLayout(tuple(plan.grid), plan.prefix, plan.suffix)
    own = [head.density for head in plan.heads]
    by_row = not isinstance(plan, _core.Plan)
    return head_loads(own, layout, plan.block_q, plan.block_kv, by_row=by_row)
