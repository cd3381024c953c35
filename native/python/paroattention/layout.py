"""Where the grid lies in a model's sequence, and its tokens in each axis order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import _core


@dataclass(frozen=True)
class TokenLayout:
    """prefix | grid F x H x W | suffix, counted in tokens; the grid in patches."""

    grid: tuple[int, int, int]
    prefix: int = 0
    suffix: int = 0

    @property
    def grid_size(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def length(self) -> int:
        return self.prefix + self.grid_size + self.suffix

    def plan(self, heads: Sequence[_core.HeadPlan], block_q: int, block_kv: int) -> _core.Plan:
        """A plan of these heads, with masks in these blocks, for this sequence."""
        sides = {"prefix": self.prefix, "suffix": self.suffix}
        return _core.Plan(self.grid, **sides, block_q=block_q, block_kv=block_kv, heads=heads)


def size(grid: Sequence[int]) -> str:
    """A grid as messages show it: "21x30x52", frames x rows x columns."""
    return "x".join(map(str, grid))


def other_sizes(what: str, grids: Sequence[Sequence[int]], grid: Sequence[int]) -> str:
    """Why profiles of these grids do not serve a run on `grid`. what: "the profile is"."""
    known = list(dict.fromkeys(map(size, grids)))
    more = f" and {len(known) - 4} more" if len(known) > 4 else ""
    return f"{what} for other sizes: {', '.join(known[:4])}{more} tokens (this run: {size(grid)})"


@functools.lru_cache(maxsize=64)
def permutation(grid: tuple[int, int, int], order: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(grid index of each place in this order, place of each grid index)."""
    tokens = torch.from_numpy(np.asarray(_core.permutation(grid, order)).astype(np.int64))
    return tokens, torch.argsort(tokens)
