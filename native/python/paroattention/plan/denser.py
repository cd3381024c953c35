"""Heads whose output the meter says is too far off: denser, then dense; the others pay for it."""

from __future__ import annotations

import numpy as np

from ..learn.sampling import relative_error
from ..limits import ALL_BLOCKS
from .head_densities import affordable
from .planning import Key, Planner
from .profile_copy import with_densities

# Queries that must have been seen before a head is judged by the meter.
_LEAST_QUERIES = 32
DENSER = "heads with a measured output error above {limit:.0%} were made denser"
CAPPED = (
    "more heads have an output error above {limit:.0%}, but half of the density is spent on dense"
    " heads already: a higher density brings them nearer"
)


class Denser:
    """limit: relative error of a head's output, 0 for none. asked: the run's density. note(text):
    tells the user."""

    def __init__(self, planner: Planner, limit: float, asked: float, note):
        self._planner, self._limit, self._asked, self._note = planner, limit, asked, note
        # Whether a head was raised since the other heads' densities were last made to fit.
        self.raised_some = False
        # By layer and head, the density that it was given.
        self.raised: dict[str, dict[int, float]] = {}
        self._capped = False
        # Of a call's present masks: sums of a Tally [heads, 4], and queries.
        self._sums: dict[Key, np.ndarray] = {}
        self._queries: dict[Key, int] = {}

    def add(self, key: Key, sums: np.ndarray, queries: int) -> None:
        """A reading of the meter: heads that are too far off by now are raised."""
        self._sums[key] = self._sums.get(key, 0) + sums
        self._queries[key] = self._queries.get(key, 0) + queries
        if self._limit > 0 and self._queries[key] >= _LEAST_QUERIES:
            changed = self._choose(key)
            if changed:
                self._raise(key, changed)

    def forget(self, key: Key) -> None:
        """A call has other masks from now on."""
        self._sums.pop(key, None)
        self._queries.pop(key, None)

    def clear(self) -> None:
        """All calls have other masks from now on."""
        self._sums.clear()
        self._queries.clear()

    def _choose(self, key: Key) -> dict[int, float]:
        """New densities by head."""
        heads, profile = self._planner.get(key).heads, self._planner.profile
        raised, changed = self.raised.setdefault(key.layer, {}), {}
        entries = profile.layers[self._planner.index(key.layer)].heads
        more = 0.0
        for head in map(int, np.flatnonzero(relative_error(self._sums[key]) > self._limit)):
            present = heads[head].density
            if present >= ALL_BLOCKS:
                continue
            # Once denser, then dense: a head that twice the density does not help is spread out.
            wanted = 1.0 if head in raised else min(1.0, 2 * present)
            cost = wanted - (entries[head].density or 0.0)
            if not affordable(profile, self._asked, more + cost):
                if not self._capped:
                    self._note(CAPPED.format(limit=self._limit))
                self._capped = True
                continue
            if head not in raised:
                self._note(DENSER.format(limit=self._limit))
            more += cost
            changed[head] = raised[head] = wanted
        return changed

    def _raise(self, key: Key, changed: dict[int, float]) -> None:
        planner, heads = self._planner, list(self._planner.get(key).heads)
        planner.use(with_densities(planner.profile, {key.layer: self.raised[key.layer]}))
        denser = planner.heads(planner.profile, key, list(changed))
        for head, plan in zip(changed, denser, strict=True):
            heads[head] = plan
        planner.replace(key, planner.mixed(key, heads))
        self.forget(key)
        self.raised_some = True
