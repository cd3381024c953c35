"""What was sampled in one call, read when its step is over; for rows that came to the host.

learn.device_watch.Reading is the same for a call that was sampled on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..heads import Heads
from ..learn.budget import Curves
from ..learn.sampling import Tally
from ..learn.seen_blocks import SeenBlocks
from ..plan.planning import Key
from ..steps import Mark


@dataclass
class HostReading:
    """seen: (head, places, block sums) of the sampled rows. gain: what a proposed mask gains, as
    proposal.gained has it. heads: those of the call, None for all; sums, curves and gain are of
    these."""

    key: Key
    mark: Mark
    sums: Tally
    curves: Curves | None = None
    gain: torch.Tensor | None = None
    heads: Heads | None = None
    seen: list[tuple[int, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def tally(self) -> Tally:
        return self.sums

    def gains(self) -> np.ndarray | None:
        return None if self.gain is None else self.gain.cpu().numpy()

    def teach(self, seen: SeenBlocks) -> None:
        for head, places, sums in self.seen:
            seen.add_sums(head, places, sums)

    def see(self, sampled, blocks: SeenBlocks) -> None:
        """Sums rows as `blocks` is to be taught them."""
        for place, head in enumerate(sampled.numbers):
            sums = sampled.block_sums(place, blocks.orders[head], blocks.block_kv)
            self.seen.append((head, sampled.places[place], sums))

    def add_gain(self, gain: torch.Tensor) -> None:
        self.gain = gain if self.gain is None else self.gain + gain


@dataclass
class Measured:
    """What a step's samples say, by key, curves by layer. heads: which ones the arrays are of, by
    key and by layer; all of them where nothing stands there."""

    tallies: dict[Key, Tally] = field(default_factory=dict)
    gains: dict[Key, np.ndarray] = field(default_factory=dict)
    curves: dict[str, Curves] = field(default_factory=dict)
    heads: dict[object, Heads] = field(default_factory=dict)

    def add(self, reading) -> None:
        """Adds what was measured of one call. All calls of a key hold the same heads."""
        key, tally, gains = reading.key, reading.tally(), reading.gains()
        if reading.heads is not None:
            self.heads[key] = self.heads[key.layer] = reading.heads
        if tally is not None:
            self.tallies.setdefault(key, Tally(tally.heads)).add_tally(tally)
        if gains is not None:
            known = self.gains.get(key)
            self.gains[key] = gains if known is None else known + gains


def sum_curves(readings: list) -> dict[str, Curves]:
    """The curves of a step's readings by layer. Summed in the order of their marks: sums of floats
    depend on it, and threads must not."""
    found: dict[str, Curves] = {}
    for reading in sorted(readings, key=lambda one: one.mark):
        if reading.curves is not None:
            known = found.get(reading.key.layer)
            found[reading.key.layer] = known + reading.curves if known else reading.curves
    return found
