"""Collects sampled rows by layer, and sums them by block once the heads' orders are known."""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import _core
from ..layout import TokenLayout
from ..learn.observer import Observer
from ..learn.seen_blocks import MOST_BYTES, SeenBlocks, pooled_tiles
from ..plan.planning import Key, Planner
from ..settings import Settings
from ..steps import Mark
from . import faults
from .report import first_line

_TOO_MUCH = f"that would take more than {MOST_BYTES >> 20} MB"


class BlockMemory:
    """Fills planner.seen, from which plans are made; only static masks that are renewed need it.
    note(text): tells the user."""

    def __init__(self, settings: Settings, observer: Observer, planner: Planner, note: Callable):
        self._settings, self._observer, self._planner = settings, observer, planner
        self._note = note
        # Rows of the dense steps, until the orders are known that sum them by block.
        self._rows: dict[str, list] = {}
        self._row_bytes = 0
        # Of the blocks that a row and a column of the sums take together; None: nothing is kept.
        self._pools: tuple[int, int] | None = None

    def keep(self, layer: str, sampled, mark: Mark | None = None) -> None:
        """Keeps rows of a dense step until the head's order is known; all or none of them."""
        if not self._settings.refresh:
            return
        rows = sampled.grid_rows.half().cpu()
        before, self._row_bytes = self._row_bytes, self._row_bytes + rows.nbytes
        if self._row_bytes > MOST_BYTES:
            self._rows.clear()
            if before <= MOST_BYTES:
                self._note(f"the first masks are made without rows of watched steps: {_TOO_MUCH}")
        else:
            pieces = self._rows.setdefault(layer, [])
            name = mark or Mark(len(pieces)), sampled.entry, sampled.numbers[0]
            pieces.append((name, tuple(sampled.numbers), sampled.places, rows))

    def begin(self, profile: _core.Profile, grid) -> None:
        """The planner uses this profile: rows that were kept of its layers are summed by block.
        Those of layers that it lacks wait for their own turn."""
        settings, heads = self._settings, profile.model.heads
        self._pools = None
        if settings.refresh and not settings.dynamic:
            self._pools = self._fitting(grid, heads * profile.model.layers)
        for layer in [one for one in self._rows if self._planner.index(one) is not None]:
            pieces = self._rows.pop(layer)
            self._row_bytes -= sum(rows.nbytes for *_, rows in pieces)
            try:
                self._sum(layer, heads, pieces)
            except Exception as error:
                # Without them the masks are made of the profile alone: no reason to have none.
                faults.free(error)
                self._note(f"rows of watched steps are not used: {first_line(error)}")

    def _sum(self, layer: str, heads: int, pieces: list) -> None:
        grid = self._observer.layers[layer].layout.grid
        seen = self.of(Key(layer, 0, TokenLayout(grid), heads, 0))
        if seen is None:
            return
        for _, numbers, places, rows in sorted(pieces, key=lambda piece: piece[0]):
            for place, head in enumerate(numbers):
                seen.add_rows(head, places[place], rows[place])

    def _fitting(self, grid, heads: int) -> tuple[int, int] | None:
        """How many tiles and key blocks a row and a column take together, so that the sums of so
        many heads fit; None if nothing does. The user is told where that loses something."""
        tile_q, tile_kv = self._settings.block_q, self._settings.block_kv
        parts, powers = pooled_tiles(grid, tile_q), range(math.prod(grid).bit_length())
        for pool_q, pool_kv in ((1, 1), *((parts, 1 << power) for power in powers)):
            if SeenBlocks.bytes(grid, heads, tile_q * pool_q, tile_kv * pool_kv) <= MOST_BYTES:
                break
        else:
            self._note(f"masks do not learn where in the picture a query lies: {_TOO_MUCH}")
            return None
        if pool_kv > 1:
            why = f"in blocks of {tile_kv} {_TOO_MUCH}"
            self._note(f"samples are summed over {tile_kv * pool_kv} keys at a time: {why}")
        return pool_q, pool_kv

    def of(self, key: Key) -> SeenBlocks | None:
        """What a call's samples are added to; None where nothing is kept of it."""
        planner, settings = self._planner, self._settings
        place = planner.index(key.layer)
        if self._pools is None or place is None:
            return None
        if key.layer not in planner.seen:
            orders = [head.order for head in planner.profile.layers[place].heads]
            planner.seen[key.layer] = SeenBlocks(
                key.layout.grid, orders, settings.block_q, settings.block_kv, self._pools
            )
        seen = planner.seen[key.layer]
        return seen if seen.grid == key.layout.grid else None

    @property
    def waiting(self) -> list[str]:
        """Layers whose rows wait for an order."""
        return list(self._rows)

    def clear(self) -> None:
        self._rows.clear()
        self._planner.seen.clear()
