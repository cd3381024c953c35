"""Sampling sparse calls where q lies: nothing here waits for the device until a step is over."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import torch

from ..heads import Heads, checked
from ..kernels import cuda_observe
from ..layout import permutation
from ..steps import Mark
from .observer import Observer
from .sampling import Tally

# Rows that one call leaves on the device until they are summed by block: other heads each time.
_ROW_BYTES = 64 << 20
# Sampled calls of a layer from one reading of the meter to the next, layers in turn: on an H100 a
# reading costs 2 to 7 % of a sparse call, and may cost half a percent of a run.
METER_EVERY = 5
# Standard deviation of a query's gain, where a kernel gives means only. On the bundled model the
# samples on a CPU have .03 to .06.
_GAIN_DEVIATION = 0.05


@dataclass
class Reading:
    """Of one call, on its way: retained mass and squared error of the present mask, then of the
    proposed one, if the meter's turn has come; block sums [kept heads, n, cols] of the queries at
    `places` [kept heads, n]. heads: those of the call, None for all."""

    key: object
    queries: int
    measured: cuda_observe.Readback | None
    kept: list[int] = field(default_factory=list)
    places: torch.Tensor | None = None
    sums: cuda_observe.Readback | None = None
    mark: Mark = field(default_factory=Mark)
    heads: Heads | None = None
    # Curves are measured from rows on the host: see watching.HostReading.
    curves = None

    def values(self) -> np.ndarray | None:
        """What was measured, [masks, heads, 2]; None between two readings of the meter."""
        return None if self.measured is None else self.measured.get().double().numpy()

    def gains(self) -> np.ndarray | None:
        """[heads, 3]: number, sum and sum of squares of the queries' gains by the proposed mask."""
        values = self.values()
        if values is None or len(values) < 2:
            return None
        gain = np.nan_to_num(values[1, :, 0] - values[0, :, 0])
        ones = np.ones_like(gain)
        return self.queries * np.stack([ones, gain, gain**2 + _GAIN_DEVIATION**2], -1)

    def tally(self) -> Tally | None:
        """What the present mask keeps and loses; None between two readings of the meter."""
        values = self.values()
        if values is None:
            return None
        tally = Tally(values.shape[1])
        tally.add_means(values[0, :, 0], values[0, :, 1], self.queries)
        return tally

    def teach(self, seen) -> None:
        """Adds the block sums to a SeenBlocks."""
        if self.sums is not None:
            seen.add_many(self.kept, self.places, self.sums.get())


@functools.lru_cache(maxsize=64)
def _order_on(grid, order: str, device: torch.device) -> torch.Tensor:
    return permutation(grid, order)[0].to(device)


def block_sums(rows: torch.Tensor, grid, orders: list[str], block: int) -> torch.Tensor:
    """(heads, n, grid tokens) in original order -> float32 (heads, n, blocks), each in its own."""
    found = []
    for own, order in zip(rows, orders, strict=True):
        ordered = own[:, _order_on(grid, order, rows.device)].float()
        blocks = -(-ordered.shape[1] // block)
        padded = torch.nn.functional.pad(ordered, (0, blocks * block - ordered.shape[1]))
        found.append(padded.view(-1, blocks, block).sum(-1))
    return torch.stack(found)


class DeviceWatch:
    """Draws, observes and meters the calls of a step; `take` hands the readings over."""

    def __init__(self, observer: Observer, tail: bool):
        self._observer, self._tail = observer, tail
        self._readings: list[Reading] = []
        # Turns are those of a layer's calls with the same conditionings: the order in which
        # threads come to them changes none.
        self._turns: dict[object, int] = {}
        # Sampled calls since the last reading of the meter.
        self._unmetered: dict[object, int] = {}

    def call(
        self,
        key,
        plans: list,
        q,
        k,
        v,
        scale: float,
        group: int,
        queries: int,
        seen,
        mark=None,
        heads: Heads | None = None,
    ) -> None:
        """plans: the present one, and a proposed one if there is, of the heads in q. seen:
        SeenBlocks that will be taught, or None. mark: which call of the run it is. heads: those in
        q, None for all."""
        batch, heads = q.shape[0], checked(heads, q.shape[1])
        share = -(-queries // batch)
        call = None if mark is None else (key.layer, mark)
        drawn = self._observer.draw(key.layout, heads, share, batch, call)
        places = torch.cat(drawn, 1)
        count = places.shape[1]
        turn = key.layer if mark is None else (key.layer, mark.conds, mark.repeat)
        numbers = count * key.layout.grid_size
        keep = self._keep(heads.total, numbers, turn) if seen is not None else []
        keep = [head for head in keep if head in heads.numbers]
        local = [heads.numbers.index(head) for head in keep]
        rows = self._observer.add_on_device(
            key.layer, q, k, key.layout, places, scale, group, local, mark, heads
        )
        own_mark = mark or Mark(len(self._readings))
        reading = Reading(key, count, None, mark=own_mark, heads=heads)
        first = None if mark is None else mark.place + sum(mark.conds)
        if self._metered(turn, first) or len(plans) > 1:
            given = places.int()
            measured = [
                cuda_observe.meter(q, k, v, plan, key.layout, given, scale, self._tail)
                for plan in plans
            ]
            reading.measured = cuda_observe.Readback(torch.stack(measured))
        if rows is not None:
            orders = [seen.orders[head] for head in keep]
            sums = block_sums(rows, key.layout.grid, orders, seen.block_kv)
            reading.kept, reading.places = keep, places[local]
            reading.sums = cuda_observe.Readback(sums)
        self._readings.append(reading)

    def _metered(self, layer, first: int | None = None) -> bool:
        """Whether it is this layer's turn: at its first call, then every METER_EVERY-th. first:
        where its turns begin, so that others take theirs at other calls."""
        waited = self._unmetered.get(layer)
        if waited is None:
            first = len(self._unmetered) if first is None else first
            self._unmetered[layer] = first % METER_EVERY
            return True
        self._unmetered[layer] = (waited + 1) % METER_EVERY
        return waited + 1 == METER_EVERY

    def _keep(self, heads: int, numbers: int, layer: object = None) -> list[int]:
        """Heads whose rows are looked at: as many as fit, the next ones at each call."""
        count = min(heads, max(1, _ROW_BYTES // (2 * numbers)))
        first = self._turns.get(layer, 0)
        self._turns[layer] = first + count
        return sorted({(first + place) % heads for place in range(count)})

    def take(self) -> list[Reading]:
        readings, self._readings = self._readings, []
        return readings
