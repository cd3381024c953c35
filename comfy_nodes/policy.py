"""When sparse attention is worth it: what is decided about a run before it goes sparse.

Few-step models have no steps to spend on watching, and short sequences little attention to save.
The limits are the user's (user_settings.py).
"""

from __future__ import annotations

import re
from dataclasses import replace

from .native import paro

_BLOCK = re.compile(r"^(.*?(?:blocks|layers))\.(\d+)\.")
# Weights in a block that grid tokens do not meet: of the text's or audio's stream, and modulations,
# which are computed once for all tokens.
_APART = re.compile(
    r"(?:^|[._])(?:txt|add|context|audio|y)_|to_add_out|_y\.|mod|adaln", re.IGNORECASE
)


def for_steps(settings, steps: int, few_steps: int) -> tuple[object, str]:
    """The settings of a run of that many steps, and what the user is told of a change. few_steps:
    runs of up to so many steps watch only the first one."""
    watched = settings.observe_steps
    if settings.calibrate or not watched:
        return settings, ""
    if steps == 1:
        return settings, "a run of 1 step is dense and watched: no step is left to be sparse"
    if steps <= few_steps and watched > 1:
        told = f"only 1 step is watched (observe_steps {watched}): the run has only {steps} steps"
        return replace(settings, observe_steps=1), told
    if watched >= steps:
        told = f"all {steps} steps are watched, so none is sparse: lower observe_steps ({watched})"
        return settings, told
    return settings, ""


def for_device(settings, device, tile: int | None):
    """The settings with these tiles, else with those that are fastest on the model's device."""
    tile = tile or paro.preferred_tile(device, settings.precision)
    return replace(settings, block_q=tile, block_kv=tile)


def slower(dense: float | None, sparse: list[float], least_gain: float) -> str:
    """What the user is told when sparse steps took longer than a dense one; seconds a step. Nothing
    with a least_gain of 0."""
    if least_gain <= 0 or dense is None or not sparse or sum(sparse) <= dense * len(sparse):
        return ""
    mean = sum(sparse) / len(sparse)
    return f"sparse steps were slower than dense ones: {mean:.2f} s a step, dense {dense:.2f} s"


def block_weights(model) -> int:
    """Weights that a grid token is multiplied with in a numbered block, on average over the blocks:
    what a block costs beside its attention. 0 for a model without such blocks."""
    total, blocks = 0, set()
    for name, weight in model.named_parameters():
        match = _BLOCK.match(name)
        if match and weight.dim() > 1:
            blocks.add(match[0])
            if not _APART.search(name[match.end() :]):
                total += weight.numel()
    return total // len(blocks) if blocks else 0


def attention_share(layout, width: int, weights: int) -> float:
    """Share of a block's multiplications that its self-attention takes. width: heads x head_dim."""
    attention = 2 * layout.length**2 * width
    return attention / (attention + layout.length * weights)


def density_total(layout, density: float) -> float:
    """Share of all blocks that is computed: prefix and suffix always are."""
    skipped = layout.grid_size**2 * (1 - density)
    return 1 - skipped / layout.length**2


def predicted_gain(
    settings, layout, share: float, steps: int, watched: int, density: float
) -> float:
    """Share of the run's time that is saved, counted in multiplications; INT8 comes on top.

    density: of the grid, on average over the heads.
    """
    inside = [
        step
        for step in range(watched, steps)
        if settings.start_percent - 1e-6 <= step / steps < settings.end_percent - 1e-6
    ]
    return len(inside) / steps * share * (1 - density_total(layout, density))
