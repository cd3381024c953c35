"""Exact block maps of a calibration, as a local cache beside its profile.

A profile's kernels are small and can be shared; exact maps are neither, and better. Calibrating
with `exact` sums the full attention of every head by block, in the head's order, and keeps the sums
in the capture as maps/<layer id>/<head>/<group>/<order>: u8, 0 = nothing, else 2^((c-255)*24/254)
of the head's greatest block. Plans use them where fingerprint, patches and grid are the very same.
"""

from __future__ import annotations

import math

import numpy as np

from . import _core, cuda_observe
from .layout import TokenLayout

# A capture takes maps of at most so many blocks a side.
MOST_BLOCKS = 512
_STEP = 24 / 254


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


def decode(codes: np.ndarray) -> np.ndarray:
    values = np.exp2((codes.astype(np.float32) - 255) * np.float32(_STEP))
    return np.where(codes == 0, np.float32(0), values)


def _joined(values: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Sums of rows x cols neighbours."""
    joined = np.add.reduceat(values, np.arange(0, values.shape[0], rows), axis=0)
    return np.add.reduceat(joined, np.arange(0, values.shape[1], cols), axis=1)


def refine(by_kernel: np.ndarray, cells: np.ndarray, side: int, tile: tuple[int, int]):
    """Importance [rows, cols] of a kernel's map, at this tile, with the exact masses of `cells`,
    blocks of `side` tokens: where these are larger, spread within each as the kernel has it; where
    they are smaller, summed."""
    total = by_kernel.sum(dtype=np.float64)
    cells = _joined(cells, *(max(1, block // side) for block in tile))
    rows, cols = (max(1, side // block) for block in tile)
    down = _joined(by_kernel, rows, cols)
    ratio = np.divide(cells, down, out=np.zeros_like(cells), where=down > 0)
    ratio = ratio.repeat(rows, 0).repeat(cols, 1)
    found = by_kernel * ratio[: by_kernel.shape[0], : by_kernel.shape[1]]
    # One block a cell: the exact map itself, also where the kernel has nothing.
    found = cells if rows == cols == 1 else found
    return (found * (total / max(found.sum(dtype=np.float64), 1e-30))).astype(np.float32)


class ExactSums:
    """Block sums of every head of a calibration, on the host; one layer's are always still on
    their way from the device while the next one computes."""

    def __init__(self, block: int = 64):
        self._block = block
        self.orders: dict[str, list[str]] = {}
        self._sums: dict[tuple[str, int], np.ndarray] = {}
        self._steps: dict[tuple[str, int], list[int]] = {}
        self._coming: tuple | None = None

    def wants(self, layer: str, group: int, step: int) -> bool:
        """Whether a step's evaluations are summed: the first of a group and every second after it.

        The sums cost nearly what a dense call does; neighbouring steps' maps are much alike.
        """
        steps = self._steps.setdefault((layer, group), [])
        if step not in steps:
            steps.append(step)
        return steps.index(step) % 2 == 0

    def add(self, layer: str, group: int, q, k, layout: TokenLayout, sm_scale: float) -> None:
        """Adds one dense evaluation; self.orders[layer] must be known."""
        block = map_block(layout.grid, self._block)
        found = cuda_observe.block_importance(
            q, k, layout, self.orders[layer], block, block, sm_scale
        )
        self.settle()
        self._coming = (layer, group), cuda_observe.Readback(found)

    def settle(self) -> None:
        """Takes over what is still on its way."""
        if self._coming is None:
            return
        (name, readback), self._coming = self._coming, None
        values = readback.get().numpy()
        if name in self._sums:
            self._sums[name] += values
        else:
            self._sums[name] = values.copy()

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
        self._coming = None


class ExactMaps:
    """The maps of a capture that go with a profile and a grid, by layer, head and group."""

    def __init__(self, profile: _core.Profile, tensors: dict[str, np.ndarray], grid):
        size = math.prod(grid)
        self._codes: dict[tuple[str, int, int], tuple[np.ndarray, int]] = {}
        orders = {layer.id: [head.order for head in layer.heads] for layer in profile.layers}
        for name, codes in tensors.items():
            kind, *place = name.split("/")
            if kind != "maps":
                continue
            layer, head, group, order = place[0], int(place[1]), int(place[2]), place[3]
            side = _side(size, codes.shape[0])
            if side and orders.get(layer, [])[head : head + 1] == [order]:
                self._codes[(layer, head, group)] = codes, side

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

    def layers(self) -> set[str]:
        return {layer for layer, _, _ in self._codes}

    def get(self, layer: str, head: int, group: int) -> tuple[np.ndarray, int] | None:
        """(masses [rows, cols] relative to the greatest block's, side of a block), or None."""
        found = self._codes.get((layer, head, group))
        return None if found is None else (decode(found[0]), found[1])


def _side(size: int, blocks: int) -> int | None:
    """The side, 64 doubled any number of times, that cuts `size` tokens into so many blocks."""
    sides = (64 << power for power in range(24))
    return next((side for side in sides if -(-size // side) == blocks), None)
