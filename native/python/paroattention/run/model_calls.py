"""The sampler's model calls, and the evaluations that each of them makes.

A call evaluates the model for each conditioning, perhaps in threads. What a session does must not
follow from which evaluation comes first: each has a Mark, the same one in every run.
"""

from __future__ import annotations

import threading
from collections import Counter

from ..steps import Forward, Mark, Steps


class ModelCalls:
    """Of one session, which holds its lock around each of these methods."""

    def __init__(self, steps: Steps):
        # Of the call under way.
        self.step, self.sigma = 0, float("nan")
        # Whether evaluations have come from several threads.
        self.threads = False
        self._steps, self._number = steps, 0
        # The thread that waits for the call; None: each evaluation may be a call of its own.
        self._caller: int | None = None
        # How often which conditionings were evaluated in it.
        self._evaluated: Counter[tuple[int, ...]] = Counter()

    def enter(self, sigma: float) -> int:
        """A call at sigma begins; returns its step."""
        self._number, self.sigma = self._number + 1, sigma
        self._evaluated.clear()
        self.step = self._steps.index(sigma)
        return self.step

    def hold(self) -> None:
        """Evaluations belong to this call, of this thread, until it is let go."""
        self._caller = threading.get_ident()

    def let_go(self) -> None:
        self._caller = None

    def is_next(self, sigma: float, conds: tuple[int, ...] | None) -> bool:
        """Whether an evaluation begins a call: nobody holds one, and sigma changes, or what is
        evaluated is not said or comes again."""
        if self._caller not in (None, threading.get_ident()):
            self.threads = True
        if self._caller is not None:
            return False
        return sigma != self.sigma or not conds or bool(self._evaluated[conds])

    def forward(
        self, sigma: float, context_length: int | None, conds: tuple[int, ...] | None
    ) -> Forward:
        """An evaluation of this call."""
        step = self.step if sigma == self.sigma else self._steps.beside(sigma)
        mark = Mark(self._number, conds or (), self._evaluated[conds or ()])
        self._evaluated[mark.conds] += 1
        return Forward(step, sigma, context_length, mark=mark)
