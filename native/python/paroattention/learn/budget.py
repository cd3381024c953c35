"""Curves of output error against density, and the density that a target error needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from ..layout import permutation
from .sampling import Sampled

# Where curves are measured. A head at 1 is dense and has no error.
LADDER = (0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 1.0)

# (order, importance [rows, cols]) of each of these heads of a layer.
Maps = Callable[[Sequence[int]], list]


class Curves:
    """Of one layer: squared output error by head and density, and squared output, summed over
    sampled queries."""

    def __init__(self, heads: int, block_q: int, block_kv: int, *, sm_scale: float, tail: bool):
        self.heads, self.block_q, self.block_kv = heads, block_q, block_kv
        self.sm_scale, self.tail = sm_scale, tail
        self.lost = np.zeros((heads, len(LADDER)))
        self.whole = np.zeros(heads)

    @staticmethod
    def chosen(importance: np.ndarray, tiles: np.ndarray) -> np.ndarray:
        """bool [ladder, n, cols]: the blocks of these rows that a mask of each density computes."""
        falling = np.sort(importance, axis=None)[::-1]
        wanted = [int(np.floor(density * falling.size + 0.5)) for density in LADDER]
        least = [falling[count - 1] if count else np.inf for count in wanted]
        rows = importance[tiles]
        inside = rows[None] >= np.array(least)[:, None, None]
        # No tile is left without a block.
        inside[:, np.arange(len(tiles)), rows.argmax(1)] = True
        return inside

    def add(self, sampled: Sampled, k: torch.Tensor, v: torch.Tensor, maps: Maps) -> None:
        """k, v (B, H, N, D) of the call. Maps are asked for by piece, and not kept: those of all
        layers of a long video would take a hundred gigabytes."""
        heads = range(self.heads)[sampled.heads]
        for place, (head, own) in enumerate(zip(heads, maps(heads), strict=True)):
            keys, values = (x[sampled.entry, head].float() for x in (k, v))
            lost, whole = self._head(sampled, place, own, keys, values)
            self.lost[head] += lost.double().cpu().numpy()
            self.whole[head] += float(whole)

    def __add__(self, other: Curves) -> Curves:
        """What both have summed, of the same layer."""
        both = copy.copy(self)
        both.lost, both.whole = self.lost + other.lost, self.whole + other.whole
        return both

    def _head(self, sampled, place, own, k, v):
        """Squared errors (ladder,) and the squared dense output of one head's sampled queries."""
        order, importance = own
        layout, block, rows = sampled.layout, self.block_kv, sampled.rows[place]
        tokens, places = (x.to(rows.device) for x in permutation(layout.grid, order))
        grid = tokens + layout.prefix
        blocks = importance.shape[1]
        short = blocks * block - len(grid)
        sizes = torch.full((blocks, 1), float(block), device=rows.device)
        sizes[-1] -= short

        def blocked(x):
            return torch.nn.functional.pad(x[grid], (0, 0, 0, short)).view(blocks, block, -1)

        values = blocked(v)
        parts = torch.nn.functional.pad(rows[:, grid], (0, short)).view(-1, blocks, block)
        # What every key block adds to the output of every query: [n, blocks, D], and its mass.
        added = torch.einsum("njb,jbd->njd", parts, values)
        mass = parts.sum(-1)
        dense = rows @ v
        fixed, text = dense - added.sum(1), 1 - mass.sum(1)
        tiles = (places[sampled.places[place].to(rows.device)] // self.block_q).cpu().numpy()
        chosen = self.chosen(importance, tiles)
        inside = torch.from_numpy(chosen).to(rows.device, torch.float32)
        numerator = torch.einsum("lnj,njd->lnd", inside, added) + fixed
        denominator = (inside * mass).sum(-1) + text
        if self.tail:
            scores = sampled.queries[place] @ (blocked(k).sum(1) / sizes).T * self.sm_scale
            pooled = (scores - sampled.lse[place, :, None]).exp() * sizes.T
            skipped = (1 - inside) * pooled
            numerator = numerator + skipped @ (values.sum(1) / sizes)
            denominator = denominator + skipped.sum(-1)
        out = numerator / denominator.clamp_min(1e-20)[..., None]
        return (out - dense).square().sum((1, 2)), dense.square().sum()


class Budget:
    """Curves of all heads, as shares of their layer's squared output.

    layers: {layer: Curves}. fixed: densities that are not ours to choose, by (layer, head). The
    predicted error of a choice is the root of the mean over layers of squared error / squared
    output.
    """

    def __init__(
        self, layers: dict[str, Curves], fixed: dict[tuple[str, int], float] | None = None
    ):
        self.heads = [(name, head) for name, one in layers.items() for head in range(one.heads)]
        scaled = [one.lost / max(one.whole.sum(), 1e-30) for one in layers.values()]
        self.errors = np.concatenate(scaled) / max(1, len(layers))
        # A mask with more blocks never is worse; samples say so only nearly.
        self.errors = np.minimum.accumulate(self.errors, axis=1)
        self.errors[:, -1] = 0.0
        self.fixed = {
            place: int(np.abs(np.array(LADDER) - fixed[name]).argmin())
            for place, name in enumerate(self.heads)
            if name in (fixed or {})
        }

    def uniform(self, density: float) -> np.ndarray:
        """The same place for every head whose density is ours to choose."""
        places = np.full(len(self.heads), int(np.abs(np.array(LADDER) - density).argmin()))
        for head, place in self.fixed.items():
            places[head] = place
        return places

    def even(self, target: float) -> float:
        """The least density, the same for every head that is ours to choose, whose predicted error
        is at most `target`; between places of the ladder the error is taken for a line, which is
        more than it is."""
        errors = [self.predicted(self.uniform(density)) for density in LADDER]
        for (low, high), (before, after) in zip(pairwise(LADDER), pairwise(errors), strict=True):
            if before <= target:
                return low
            if after <= target:
                return low + (high - low) * (before - target) / (before - after)
        return 1.0

    def predicted(self, places: np.ndarray) -> float:
        """Relative error of a layer's output when head i has density LADDER[places[i]]."""
        return float(np.sqrt(self.errors[np.arange(len(places)), places].sum()))

    def densities(self, density: float) -> dict[str, dict[int, float]]:
        """This density for every head that is ours to choose, by layer and head."""
        found: dict[str, dict[int, float]] = {}
        for index, (layer, head) in enumerate(self.heads):
            if index not in self.fixed:
                found.setdefault(layer, {})[head] = density
        return found
