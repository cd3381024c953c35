"""New masks, judged by samples that are newer than those they were made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from .. import _core
from ..learn.sampling import Sampled, kept_mass
from .planning import Key, Planner

# What a new mask must keep more, beyond the samples' own standard error.
LEAST_GAIN = 0.002


def gained(heads: int, sampled: Sampled, present: _core.Plan, wanted: _core.Plan) -> torch.Tensor:
    """[heads, 3]: number, sum and sum of squares of the retained mass that each sampled query gains
    by the wanted mask; 0 for heads that were not sampled."""
    old, new = kept_mass(sampled, present), kept_mass(sampled, wanted)
    gain = ((new - old)[..., 0] / old[..., 1].clamp_min(1e-20)).double()
    sums = torch.stack([torch.ones_like(gain), gain, gain.square()], -1).sum(1)
    every = torch.zeros(heads, 3, dtype=torch.float64, device=sums.device)
    every[sampled.heads] = sums
    return every


class Proposal:
    """A renewed profile, its plans, and what they have gained on samples so far."""

    def __init__(self, profile: _core.Profile, step: int, planner: Planner):
        self.profile, self.step, self._planner = profile, step, planner
        self._plans: dict[Key, _core.Plan] = {}
        # By key, [heads, 3]: sums of 1, of the queries' gains and of their squares.
        self._gains: dict[Key, np.ndarray] = {}
        self._builders: dict[tuple, object] = {}

    def begin(self) -> None:
        """Begins to build the plans of all layers, where that goes on beside a GPU's work."""
        planner = self._planner
        for name in {(key.group, key.layout) for key in planner.plans()}:
            if planner.background:
                self._builders[name] = planner.builder(self.profile, *name)

    def plan(self, key: Key) -> _core.Plan:
        """The new plan of a call. One that is still being built is waited for: which masks a run
        takes must not depend on how fast a machine is."""
        planner = self._planner
        if key not in self._plans:
            name = key.group, key.layout
            if planner.background and name not in self._builders:
                self._builders[name] = planner.builder(self.profile, *name)
            built = self._builders.get(name)
            self._plans[key] = built.get(key.layer) if built else planner.build(self.profile, key)
        return self._plans[key]

    def add(self, key: Key, sums: np.ndarray) -> None:
        """Adds what a call's samples gain by the new mask, as `gained` has it."""
        known = self._gains.get(key)
        self._gains[key] = sums if known is None else known + sums

    @property
    def asked(self) -> bool:
        """Whether calls have been sampled under it; what a device says may be on its way."""
        return bool(self._plans)

    def verdicts(self) -> Iterator[tuple[Key, _core.Plan, np.ndarray]]:
        """(key, new plan, by head whether it keeps more than samples may say by chance)."""
        for key, sums in self._gains.items():
            count, gain, squares = sums.T
            count = np.maximum(count, 1)
            mean = gain / count
            spread = np.sqrt(np.maximum(squares / count - mean**2, 0) / count)
            yield key, self._plans[key], mean > np.maximum(LEAST_GAIN, spread)

    def end(self) -> None:
        """Stops what is still being built."""
        for builder in self._builders.values():
            builder.cancel()
