"""Exact block maps of a calibration, as a local cache beside its profile.

A profile's kernels are small and can be shared; exact maps are neither, and better. Calibrating
with `exact` sums the full attention of every head by block, in the head's order, and keeps the sums
in the capture as maps/<layer id>/<head>/<group>/<order>: u8, 0 = nothing, else 2^((c-255)*24/254)
of the head's greatest block. Plans use them where fingerprint, patches and grid are the very same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from .. import _core
from ..kernels import cuda_observe
from ..layout import TokenLayout

# A capture takes maps of at most so many blocks a side.
MOST_BLOCKS = 512
# Of the sums of all layers and groups; beyond it all are kept in blocks twice as wide and high.
MOST_BYTES = 4 << 30
_STEP = 24 / 254
# Of mass: what is below 2^-30 of a query is nothing.
_UNITS = 2.0**30


def map_block(grid, block: int) -> int:
    """Side of the blocks that are summed: `block`, doubled until a map fits a capture."""
    size = math.prod(grid)
    while -(-size // block) > MOST_BLOCKS:
        block *= 2
    return block


def encode(values: np.ndarray) -> np.ndarray:
    """uint8 codes of masses, relative to the greatest; what is 2^-24 of it or less becomes 0."""
    peak = float(values.max(initial=0.0))
    if peak <= 0:
        return np.zeros(values.shape, dtype=np.uint8)
    with np.errstate(divide="ignore"):
        code = np.round(255 + np.log2(values / peak) / _STEP)
    return np.clip(code, 0, 255).astype(np.uint8)


def halved(sums: np.ndarray) -> np.ndarray:
    """(H, n, n) -> sums of 2 x 2 neighbours; a last one alone stays alone."""
    for axis in (1, 2):
        sums = np.add.reduceat(sums, range(0, sums.shape[axis], 2), axis=axis)
    return sums


class ExactSums:
    """Block sums of every head of a calibration, on the host; one layer's are always still on
    their way from the device while the next one computes. note(text): tells the user."""

    def __init__(self, block: int = 64, note: Callable[[str], None] = lambda text: None):
        self._block, self._note = block, note
        # How often blocks were made larger than a capture asks for, for want of memory.
        self._doubled, self._bytes = 0, 0
        self.orders: dict[str, list[str]] = {}
        self._sums: dict[tuple[str, int], np.ndarray] = {}
        self._steps: dict[tuple[str, int], list[int]] = {}
        self._coming: tuple | None = None
        # Whether evaluations come from several threads: sums must not depend on their order then.
        self.threads = False

    def wants(self, layer: str, group: int, step: int) -> bool:
        """Whether a step's evaluations are summed: the first of a group and every second after it.

        The sums cost nearly what a dense call does; neighbouring steps' maps are much alike.
        """
        steps = self._steps.setdefault((layer, group), [])
        if step not in steps:
            steps.append(step)
        return steps.index(step) % 2 == 0

    def choose_orders(self, layer: str, group: int, observer, grid, density: float) -> None:
        """The orders of a layer's heads by what an Observer has seen so far, if they are not known
        yet. Waits for the device."""
        if layer not in self.orders:
            bins, threads = observer.layers[layer].bins, torch.get_num_threads()
            kernels = [[kernel] for kernel in observer.kernels(layer, group)]
            heads = _core.build_heads(bins, kernels, grid, density, threads=threads)
            self.orders[layer] = [head.order for head in heads]

    def add(self, layer: str, group: int, q, k, layout: TokenLayout, sm_scale: float) -> None:
        """Adds one dense evaluation; self.orders[layer] must be known."""
        doubled = self._doubled
        block = map_block(layout.grid, self._block) << doubled
        found = cuda_observe.block_importance(
            q, k, layout, self.orders[layer], block, block, sm_scale
        )
        self.settle()
        self._coming = (layer, group), doubled, cuda_observe.Readback(found)

    def settle(self) -> None:
        """Takes over what is still on its way."""
        if self._coming is None:
            return
        (name, doubled, readback), self._coming = self._coming, None
        values = readback.get().numpy()
        if self.threads:
            # Whole units add up without rounding; twice the memory.
            values = np.rint(values.astype(np.float64) * _UNITS) / _UNITS
        for _ in range(doubled, self._doubled):
            values = halved(values)
        if name in self._sums:
            self._sums[name] += values
            return
        self._sums[name] = values.copy()
        self._bytes += values.nbytes
        while self._bytes > MOST_BYTES and values.shape[1] > 1:
            self._halve()
            values = self._sums[name]

    def _halve(self) -> None:
        """Keeps all sums in blocks twice as wide and high."""
        if not self._doubled:
            self._note(
                "exact maps are summed over larger blocks: they would take more than"
                f" {MOST_BYTES >> 20} MB of memory"
            )
        self._doubled += 1
        for name, sums in self._sums.items():
            self._sums[name] = halved(sums)
        self._bytes = sum(sums.nbytes for sums in self._sums.values())

    def tensors(self, profile: _core.Profile) -> dict[str, np.ndarray]:
        """Capture tensors of the heads whose order is that of the profile."""
        self.settle()
        found = {}
        for layer in profile.layers:
            for head, entry in enumerate(layer.heads):
                if self.orders.get(layer.id, [None] * (head + 1))[head] != entry.order:
                    continue
                for group in range(len(profile.timestep_groups)):
                    sums = self._sums.get((layer.id, group))
                    if sums is not None:
                        name = f"maps/{layer.id}/{head}/{group}/{entry.order}"
                        found[name] = encode(sums[head])
        return found

    def clear(self) -> None:
        self._sums.clear()
        self._steps.clear()
        self._coming, self._bytes = None, 0


class ExactMaps:
    """The maps of a capture that go with a profile and a grid, by layer, head and group."""

    def __init__(self, profile: _core.Profile, tensors: dict[str, np.ndarray], grid):
        # As many as cells of 64 tokens, doubled any number of times, cut the grid into.
        blocks = {-(-math.prod(grid) // (64 << power)) for power in range(24)}
        self.grid, self._heads = tuple(grid), profile.model.heads
        self._codes: dict[tuple[str, int, int], np.ndarray] = {}
        orders = {layer.id: [head.order for head in layer.heads] for layer in profile.layers}
        for name, codes in tensors.items():
            kind, *place = name.split("/")
            if kind != "maps":
                continue
            layer, head, group, order = place[0], int(place[1]), int(place[2]), place[3]
            fits = codes.shape[0] in blocks and codes.shape[0] == codes.shape[1]
            if fits and orders.get(layer, [])[head : head + 1] == [order]:
                self._codes[(layer, head, group)] = codes

    @staticmethod
    def of(profile: _core.Profile, captured: _core.Profile, tensors: dict, grid):
        """The maps that a capture brings for this profile and grid; None if it has none."""
        for what in ("fingerprint", "patches", "heads"):
            if getattr(profile.model, what) != getattr(captured.model, what):
                return None
        same = tuple(grid) in [tuple(one) for one in captured.calibration.grids[:1]]
        if not same or profile.timestep_groups != captured.timestep_groups:
            return None
        maps = ExactMaps(profile, tensors, grid)
        return maps if maps._codes else None

    def codes(self, layer: str, group: int) -> list[np.ndarray | None]:
        """By head uint8 [cells, cells] as encode() makes them, or None where there is no map; of a
        layer without any nothing."""
        found = [self._codes.get((layer, head, group)) for head in range(self._heads)]
        return found if any(one is not None for one in found) else []
