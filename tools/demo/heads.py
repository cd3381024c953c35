"""What each head's map looks like in the original and in its own order, rebuilt from a profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIXED_ORDER = "FHW"


@dataclass
class HeadView:
    """Importance by block and the mask at one density, in the fixed and in the chosen order."""

    layer: str
    head: int
    order: str
    before: np.ndarray
    before_mask: np.ndarray
    before_retained: float
    after: np.ndarray
    after_mask: np.ndarray
    after_retained: float

    @property
    def gain(self) -> float:
        return self.after_retained - self.before_retained


def views(profile_path: Path, density: float, block_q: int, block_kv: int) -> list[HeadView]:
    """All heads of a profile, in its last timestep group."""
    from paroattention import Profile, _core

    profile = Profile.load(str(profile_path))
    grid = tuple(profile.calibration.grids[0])
    bins = profile.bins

    def one(values: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray, float]:
        block_map = _core.importance(bins, values, grid, order, block_q, block_kv)
        mask = _core.make_mask(block_map, density)
        return block_map.numpy(), mask.numpy(), _core.retained_mass(block_map, mask)

    found = []
    for layer in profile.layers:
        for number, head in enumerate(layer.heads):
            group = head.groups[-1]
            values = _core.dequantise(bins, group.code, group.peak)
            before, after = one(values, FIXED_ORDER), one(values, head.order)
            found.append(HeadView(layer.id, number, head.order, *before, *after))
    return found


def most_telling(found: list[HeadView], count: int = 6) -> list[HeadView]:
    """The heads that gain most by their order, at most two of an order, and one that stays."""
    chosen: list[HeadView] = []
    for view in sorted(found, key=lambda v: -v.gain):
        if view.order != FIXED_ORDER and sum(c.order == view.order for c in chosen) < 2:
            chosen.append(view)
    staying = [view for view in found if view.order == FIXED_ORDER]
    if staying:
        chosen = [*chosen[: count - 1], max(staying, key=lambda v: v.after_retained)]
    return chosen[:count]
