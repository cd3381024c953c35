"""Which step of a run an evaluation belongs to, what that step does, and which call is which."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from .settings import Settings

# Samplers hand sigma over in float32 and sometimes rescaled: this close to an edge is the edge.
_HAIR = 1e-5


class Mark(NamedTuple):
    """Which attention call of a run this is. The same however threads interleave, and sorted as one
    thread would make the calls: what depends on an order goes by it, not by arrival.

    call: of the sampler's model calls. conds: the conditionings that were evaluated. repeat: how
    often these were evaluated before in that model call. place: of this one among the evaluation's
    attention calls.
    """

    call: int = 0
    conds: tuple[int, ...] = ()
    repeat: int = 0
    place: int = 0


@dataclass
class Forward:
    """One model evaluation: its step, how often each block has called self-attention, and whether
    one of its calls is under way. mark: that of its first call."""

    step: int
    sigma: float
    context_length: int | None = None
    calls: dict[str, int] = field(default_factory=dict)
    busy: bool = False
    mark: Mark = field(default_factory=Mark)

    def layer_id(self, block_type: str, block_index: int) -> str:
        """`block_type.block_index.occurrence`, counting this call."""
        block = f"{block_type}.{block_index}"
        occurrence = self.calls.get(block, 0)
        self.calls[block] = occurrence + 1
        return f"{block}.{occurrence}"

    def next_mark(self) -> Mark:
        """The mark of the call that begins."""
        mark = self.mark
        self.mark = mark._replace(place=mark.place + 1)
        return mark


class Steps:
    """The steps of a run: n + 1 sigmas, step i leading from the i-th to the one after it.

    Sigmas fall where noise is taken away and rise where it is added (unsampling); they may also
    stay or turn. Where several steps hold a sigma it is the next one that the sampler comes to.
    """

    def __init__(self, sigmas: list[float], settings: Settings):
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.settings = settings
        # The step to go on from; whether its first call was made; whether the sampler tells.
        self._at, self._begun, self._told = 0, False, False
        self._last = (0, self.sigmas[0] if self.sigmas else 0.0)

    @property
    def count(self) -> int:
        return max(1, len(self.sigmas) - 1)

    def index(self, sigma: float) -> int:
        """The step of the sampler's next model call, which is at sigma; goes on to it.

        It is the step that begins at sigma or passes it; the nearest one outside of all. A second
        call at a step's end (Heun's) counts as the next step's: it begins there.
        """
        sigma = self._edge_or(sigma)
        step = self._next(sigma)
        if self._told:
            # Some look back, or farther ahead than the step after this one.
            step = min(max(step, self._at), self._at + 1)
        else:
            if step != self._at:
                self._at, self._begun = step, False
            self._begun = self._begun or sigma == self.sigmas[step]
        self._last = step, sigma
        return step

    def beside(self, sigma: float) -> int:
        """The step of an evaluation at another sigma than the model call's that it is part of."""
        return self._next(self._edge_or(sigma))

    def came_to(self, step: int) -> None:
        """The sampler says that it is in this step, after the step's first model call. Samplers
        that count steps of their own (dpm_fast, dpm_adaptive) are not believed."""
        label, sigma = self._last
        self._told = 0 <= step < self.count and self._spans(step, sigma)
        self._at, self._begun = (step, True) if self._told else (label, self._begun)

    def _edge_or(self, sigma: float) -> float:
        edge = min(self.sigmas, key=lambda one: abs(one - sigma), default=sigma)
        return edge if abs(edge - sigma) <= _HAIR * abs(edge) else sigma

    def _next(self, sigma: float) -> int:
        """Of the steps that hold sigma the first one from here on, else the last one before."""
        first = self._at
        if self._begun and self.sigmas[first : first + 2] == [sigma, sigma]:
            first += 1  # a step that stays where it is has one call there
        # Ancestral samplers come to NaN where sigmas rise: that belongs where they are.
        held = [self._at] if math.isnan(sigma) else self._holding(sigma)
        return next((step for step in held if step >= first), held[-1])

    def _spans(self, step: int, sigma: float) -> bool:
        low, high = sorted(self.sigmas[step : step + 2])
        return low <= sigma <= high

    def _holding(self, sigma: float) -> list[int]:
        """Steps that begin at sigma or pass it; where there are none the nearest ones."""
        steps = list(pairwise(self.sigmas))
        last = len(steps) - 1
        held = [
            step
            for step, (start, end) in enumerate(steps)
            if self._spans(step, sigma) and (sigma != end or start == end or step == last)
        ]
        if held or not steps:
            return held or [0]
        away = [min(abs(sigma - start), abs(sigma - end)) for start, end in steps]
        return [step for step, distance in enumerate(away) if distance == min(away)] or [0]

    def allowed(self, step: int) -> bool:
        """Whether a step lies within start_percent and end_percent, as shares of the steps."""
        share = step / self.count
        inside = self.settings.start_percent - 1e-6 <= share
        return inside and (share < self.settings.end_percent - 1e-6)

    def groups(self, halves: bool) -> list[tuple[float, float]]:
        """(sigma_max, sigma_min) of the timestep groups: one for all steps, or two with half of
        them each, high sigmas first whichever way the run goes."""
        high, low = max(self.sigmas), min(self.sigmas)
        starts = sorted(self.sigmas[:-1], reverse=True)
        below = [sigma for sigma in starts[len(starts) // 2 :] if sigma < starts[0]]
        if halves and below:
            middle = below[0]
            if middle == low:
                # The lower steps all begin where the range ends: the border is above them.
                middle = (middle + min(sigma for sigma in starts if sigma > middle)) / 2
            if high > middle > low:
                return [(high, middle), (middle, low)]
        # A range must not be empty, nor reach below 0.
        low = max(0.0, min(low, high - 1e-6))
        return [(high if high > low else low + 1e-6, low)]
