"""Collects sampled rows by layer, and sums them by block once the heads' orders are known."""

from __future__ import annotations

from .. import _core
from ..layout import TokenLayout
from ..learn.observer import Observer
from ..learn.seen_blocks import MOST_BYTES, SeenBlocks
from ..plan.planning import Key, Planner
from ..settings import Settings
from ..steps import Mark


class BlockMemory:
    """Fills planner.seen, from which plans are made; only static masks that are renewed need it."""

    def __init__(self, settings: Settings, observer: Observer, planner: Planner):
        self._settings, self._observer, self._planner = settings, observer, planner
        # Rows of the dense steps, until the orders are known that sum them by block.
        self._rows: dict[str, list] = {}
        self._row_bytes = 0
        self._fits = False

    def keep(self, layer: str, sampled, mark: Mark | None = None) -> None:
        """Keeps rows of a dense step until the head's order is known; all or none of them."""
        rows = sampled.grid_rows.half().cpu()
        self._row_bytes += rows.numel() * rows.element_size()
        if self._row_bytes > MOST_BYTES:
            self._rows.clear()
        else:
            pieces = self._rows.setdefault(layer, [])
            name = mark or Mark(len(pieces)), sampled.entry, sampled.heads.start
            pieces.append((name, sampled.heads, sampled.places, rows))

    def begin(self, profile: _core.Profile, grid) -> None:
        """The planner uses this profile: rows that were kept of its layers are summed by block.
        Those of layers that it lacks wait for their own turn."""
        settings, heads = self._settings, profile.model.heads
        size = SeenBlocks.bytes(grid, heads, settings.block_q, settings.block_kv)
        self._fits = settings.refresh and not settings.dynamic
        self._fits = self._fits and size * profile.model.layers <= MOST_BYTES
        for layer in [one for one in self._rows if self._planner.index(one) is not None]:
            pieces, layout = self._rows.pop(layer), self._observer.layers[layer].layout
            self._row_bytes -= sum(rows.numel() * rows.element_size() for *_, rows in pieces)
            seen = self.of(Key(layer, 0, TokenLayout(layout.grid), heads, 0))
            if seen is None:
                continue
            for _, part, places, rows in sorted(pieces, key=lambda piece: piece[0]):
                for place, head in enumerate(range(heads)[part]):
                    seen.add_rows(head, places[place], rows[place])

    def of(self, key: Key) -> SeenBlocks | None:
        """What a call's samples are added to; None where nothing is kept of it."""
        planner, settings = self._planner, self._settings
        place = planner.index(key.layer)
        if not self._fits or place is None:
            return None
        if key.layer not in planner.seen:
            orders = [head.order for head in planner.profile.layers[place].heads]
            planner.seen[key.layer] = SeenBlocks(
                key.layout.grid, orders, settings.block_q, settings.block_kv
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
