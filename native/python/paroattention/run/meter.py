"""The meter: what the samples of sparse calls say of every head's present mask."""

from __future__ import annotations

import numpy as np

from ..learn.sampling import LOST, WHOLE, Tally, relative_error, retained
from ..plan.denser import Denser
from ..plan.planning import Key, Planner


def _layer_error(sums: np.ndarray) -> float:
    """Relative error of a whole layer's output, from sums of a Tally [heads, 4] or their total."""
    lost, whole = sums.reshape(-1, sums.shape[-1]).sum(0)[[LOST, WHOLE]]
    return float(np.sqrt(lost / max(whole, 1e-30)))


class Meter:
    """Readings of a run's sampled calls. Heads that are too far off become denser at once."""

    def __init__(self, planner: Planner, denser: Denser):
        self._planner, self.denser = planner, denser
        # {step, sigma, layer, retained, error, layer_error, sums}, arrays by head: for the run log
        # and the viewer.
        self.history: list[dict] = []

    def read(self, tallies: dict[Key, Tally], step: int, sigma: float, ran: dict[Key, object]):
        """Takes a step's readings. ran: the plans that its calls had; where another one has come
        since, the reading says nothing of it."""
        for key, tally in tallies.items():
            sums = tally.read()
            self.history.append(
                {
                    "step": step,
                    "sigma": sigma,
                    "layer": key.layer,
                    "retained": retained(sums),
                    "error": relative_error(sums),
                    "layer_error": _layer_error(sums),
                    "sums": sums,
                }
            )
            if ran.get(key) is self._planner.get(key):
                self.denser.add(key, sums, tally.queries)

    def measured(self) -> tuple[float, float] | None:
        """(mean retained mass of the heads, relative error of a layer's output) at the newest
        sampled step; None before the first one."""
        newest = [one for one in self.history if one["step"] == self.history[-1]["step"]]
        if not newest:
            return None
        mass = float(np.mean([one["retained"].mean() for one in newest]))
        return mass, _layer_error(np.stack([one["sums"] for one in newest]))
