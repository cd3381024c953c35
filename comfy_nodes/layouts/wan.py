"""Wan 2.1 and 2.2: self-attention over video tokens only, the grid in transformer_options."""

from __future__ import annotations

import math

from ..native import paro
from . import CROSS_ATTENTION, Call, register


@register("wan2.1")
def layout(call: Call):
    sizes = call.options.get("grid_sizes")
    if sizes is None or len(sizes) != 3:
        return "transformer_options holds no grid_sizes"
    grid = tuple(int(side) for side in sizes)
    size = math.prod(grid)
    if call.kv_len != call.qo_len:
        return CROSS_ATTENTION
    if call.qo_len != size:
        # Reference or context latents stand before or after the grid; nothing here says where.
        return f"{call.qo_len} tokens, but the grid {grid} has {size} (extra latents?)"
    if call.context_length == size:
        # Block type and index are the same for both, and so would be the lengths.
        return (
            f"the text is as long as the grid ({size} tokens): self and cross-attention look alike"
        )
    return paro.TokenLayout(grid)
