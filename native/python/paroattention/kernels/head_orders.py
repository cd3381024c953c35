"""Plans without masks of their own: the orders that masks are found in, and what was found."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from .. import _core
from ..layout import TokenLayout


@dataclass(frozen=True)
class OrderedHead:
    """The order of a head's tokens, and the share of each row's grid blocks that is computed."""

    order: str
    density: float


@dataclass(frozen=True, eq=False)
class HeadOrders:
    """What a call's masks are found from, beside its q and k. Reads as a Plan where masks do not
    matter: geometry, heads and densities, which are known before any mask is."""

    layout: TokenLayout
    heads: tuple[OrderedHead, ...]
    block_q: int = 64
    block_kv: int = 64

    # What masks that are not there yet will keep is not estimated: the meter measures it.
    retained = None

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.layout.grid

    @property
    def prefix(self) -> int:
        return self.layout.prefix

    @property
    def suffix(self) -> int:
        return self.layout.suffix

    @property
    def length(self) -> int:
        return self.layout.length

    @property
    def head_count(self) -> int:
        return len(self.heads)

    @property
    def rows(self) -> int:
        return -(-self.layout.grid_size // self.block_q)

    @property
    def cols(self) -> int:
        return -(-self.layout.grid_size // self.block_kv)

    @functools.cached_property
    def orders(self) -> list[str]:
        return [head.order for head in self.heads]

    @functools.cached_property
    def densities(self) -> tuple[float, ...]:
        return tuple(float(head.density) for head in self.heads)

    @functools.cached_property
    def density(self) -> float:
        """Grid blocks that are computed / all: every row of a head has the same number of them."""
        asked = np.array(self.densities, dtype=np.float32).astype(np.float64)
        counts = np.clip(np.floor(asked * self.cols + 0.5), 1, self.cols)
        return float(counts.mean()) / self.cols

    @functools.cached_property
    def density_total(self) -> float:
        """As density, prefix and suffix counted too."""
        parts = self.prefix, self.suffix
        rows = self.rows + sum(-(-tokens // self.block_q) for tokens in parts)
        cols = self.cols + sum(-(-tokens // self.block_kv) for tokens in parts)
        return 1 - (1 - self.density) * (self.rows * self.cols) / (rows * cols)


@dataclass(frozen=True, eq=False)
class FoundMasks(HeadOrders):
    """Masks of one call, on its device: `words` as the operators want a plan's."""

    words: torch.Tensor | None = None

    @property
    def masks(self) -> torch.Tensor:
        """int32 (H, rows, words) of `words`."""
        parts = _core.PlanWords(self.head_count, self.rows, self.cols)
        return self.words[parts.masks :].view(parts.heads, parts.rows, parts.mask_words)
