"""What each head's map looks like in the original and in its own order, rebuilt from a profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FIXED_ORDER = "FHW"
SIDE = 280  # of a map's picture, in pixels, rounded down to whole pixels a block


@dataclass
class Head:
    """A head's views (paroattention's HeadView) in the fixed and in the chosen order."""

    layer: str
    number: int
    before: object
    after: object

    @property
    def order(self) -> str:
        return self.after.order

    @property
    def gain(self) -> float:
        return self.after.retained - self.before.retained


def heads_of(profile_path: Path, density: float, tile: int) -> list[Head]:
    """All heads of a profile, in its last timestep group, each at its own density or this one."""
    from paroattention import Profile, head_views

    profile = Profile.load(str(profile_path))
    group = len(profile.timestep_groups) - 1
    return [
        Head(name, head, *head_views(profile, layer, head, group, tile, density))
        for layer, name in enumerate(profile.layer_ids())
        for head in range(profile.model.heads)
    ]


def picture(view) -> np.ndarray:
    """A view as uint8 RGB; skipped blocks are greyed."""
    return view.picture(max(view.rows, SIDE - SIDE % view.rows))


def colour_bar(height: int = 10) -> np.ndarray:
    """The colours of the maps from none to most, uint8 RGB."""
    from paroattention import _core

    return np.repeat(_core.colormap()[None], height, 0)


def most_telling(found: list[Head], count: int = 6) -> list[Head]:
    """The heads that gain most by their order, at most two of an order, and one that stays."""
    chosen: list[Head] = []
    for head in sorted(found, key=lambda one: -one.gain):
        if head.order != FIXED_ORDER and sum(c.order == head.order for c in chosen) < 2:
            chosen.append(head)
    staying = [head for head in found if head.order == FIXED_ORDER]
    if staying:
        chosen = [*chosen[: count - 1], max(staying, key=lambda one: one.after.retained)]
    return chosen[:count]
