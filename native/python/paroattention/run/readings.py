"""What was sampled in one call, read when its step is over; for rows that came to the host.

learn.device_watch.Reading is the same for a call that was sampled on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..learn.budget import Curves
from ..learn.sampling import Tally
from ..learn.seen_blocks import SeenBlocks
from ..plan.planning import Key
from ..steps import Mark


@dataclass
class HostReading:
    """seen: (head, places, block sums) of the sampled rows. gain: what a proposed mask gains, as
    proposal.gained has it."""

    key: Key
    mark: Mark
    sums: Tally
    curves: Curves | None = None
    gain: torch.Tensor | None = None
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
        for place, head in enumerate(range(self.key.heads)[sampled.heads]):
            sums = sampled.block_sums(place, blocks.orders[head], blocks.block_kv)
            self.seen.append((head, sampled.places[place], sums))

    def add_gain(self, gain: torch.Tensor) -> None:
        self.gain = gain if self.gain is None else self.gain + gain


def sum_curves(readings: list) -> dict[str, Curves]:
    """The curves of a step's readings by layer. Summed in the order of their marks: sums of floats
    depend on it, and threads must not."""
    found: dict[str, Curves] = {}
    for reading in sorted(readings, key=lambda one: one.mark):
        if reading.curves is not None:
            known = found.get(reading.key.layer)
            found[reading.key.layer] = known + reading.curves if known else reading.curves
    return found
