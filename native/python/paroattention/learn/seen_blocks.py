"""What sampled queries saw of every block, in their head's own order.

An offset kernel cannot tell where in the picture a query lies. The samples themselves can: their
rows, summed by key block, estimate the importance of their query tile, with noise. Both are
blended. The offset kernel counts as PRIOR samples a tile, so few samples change little, and many
come near exact maps.

Of a long video they are summed over an eighth of the head's queries at a time. They say how much of
that falls into a key block, and the offset kernel how it lies within.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from .. import _core
from ..layout import permutation
from .sampling import Sampled, block_sums

# Queries of a tile that its kernel counts as. Measured on the bundled model at 4.7 samples a tile:
# 2 and 8 retain the same within .002 (.855 and .853 at density .2), 32 less (.846). In tiles of 128
# 1 and 4 measure the same error (.052 and .076 at .3 and .2), 16 a tenth more (.059 and .083).
PRIOR = 4.0
# The same for exact maps of a calibration, which are of another prompt but know the places.
EXACT_PRIOR = 16.0
# Of all layers together.
MOST_BYTES = 512 << 20
# Parts of a head's queries, in its order, that samples are summed over where tiles would be too
# many. On the bundled model 4 to 14 parts of 55 tiles come to the PSNR of tiles or up to 1.1 dB
# above it, 7 parts of 28 larger tiles to 0.4 dB below it.
PARTS = 8


def pooled_tiles(grid, block_q: int) -> int:
    """How many query tiles are one part."""
    return max(1, -(-math.prod(grid) // (block_q * PARTS)))


class SeenBlocks:
    """Of one layer: sums [heads, rows, cols] of sampled rows by block, counts [heads, rows].

    pools: tiles and key blocks of a mask that a row and a column take together.
    """

    def __init__(
        self,
        grid,
        orders: list[str],
        block_q: int,
        block_kv: int,
        pools: tuple[int, int] = (1, 1),
    ):
        self.grid, self.orders, self.pools = grid, orders, pools
        self.block_q, self.block_kv = block_q * pools[0], block_kv * pools[1]
        size = grid[0] * grid[1] * grid[2]
        self.rows, self.cols = -(-size // self.block_q), -(-size // self.block_kv)
        self.sums = np.zeros((len(orders), self.rows, self.cols), dtype=np.float32)
        self.counts = np.zeros((len(orders), self.rows), dtype=np.float32)
        self._readers: list[Callable[[], bool]] = []

    @staticmethod
    def bytes(grid, heads: int, block_q: int, block_kv: int) -> int:
        size = grid[0] * grid[1] * grid[2]
        return 4 * heads * -(-size // block_q) * -(-size // block_kv)

    @property
    def empty(self) -> bool:
        return not self.counts.any()

    def add(self, sampled: Sampled) -> None:
        for place, head in enumerate(sampled.numbers):
            sums = sampled.block_sums(place, self.orders[head], self.block_kv)
            self.add_sums(head, sampled.places[place], sums)

    def add_rows(self, head: int, places: torch.Tensor, rows: torch.Tensor) -> None:
        """places (n,): grid indices; rows (n, grid tokens) in original order."""
        sums = block_sums(rows.float(), self.grid, self.orders[head], self.block_kv)
        self.add_sums(head, places, sums)

    def add_sums(self, head: int, places: torch.Tensor, sums: torch.Tensor) -> None:
        """sums (n, cols): rows of the queries at places (n,) by block of the head's order."""
        self.add_many([head], places[None], sums[None])

    def add_many(self, heads: list[int], places: torch.Tensor, sums: torch.Tensor) -> None:
        """add_sums of several heads: places (heads, n), sums (heads, n, cols)."""
        own = [
            head * self.rows + permutation(self.grid, self.orders[head])[1][where] // self.block_q
            for head, where in zip(heads, places, strict=True)
        ]
        self._own()
        # Not torch's index_add_: its threads and those that build plans keep each other waiting.
        values = sums.reshape(-1, self.cols).float().cpu().numpy()
        _core.add_samples(self.sums, self.counts, torch.cat(own).numpy(), values)

    def put(self, heads: list[int], sums: np.ndarray, counts: np.ndarray) -> None:
        """Sums of these heads from elsewhere take the place of those here."""
        self._own()
        self.sums[heads], self.counts[heads] = sums, counts

    def lend(self, busy: Callable[[], bool]) -> None:
        """The arrays are read elsewhere as long as busy(): what comes meanwhile goes to copies."""
        self._readers.append(busy)

    def _own(self) -> None:
        if any(busy() for busy in self._readers):
            self.sums, self.counts = self.sums.copy(), self.counts.copy()
        self._readers.clear()

    def fade(self, share: float) -> None:
        """Lets older samples count less."""
        self._own()
        self.sums *= share
        self.counts *= share
