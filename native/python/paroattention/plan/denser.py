"""Heads whose output the meter says is too far off: denser, then dense, a quarter at most."""

from __future__ import annotations

import numpy as np

from ..learn.sampling import relative_error
from ..limits import ALL_BLOCKS
from .planning import Key, Planner
from .profile_build import DENSE_SHARE
from .renewal import with_densities

# Queries that must have been seen before a head is judged by the meter.
_LEAST_QUERIES = 32
DENSER = "heads with a measured output error above {limit:.0%} were made denser"
CAPPED = "more heads have an output error above {limit:.0%}, but a quarter of all is denser already"


class Denser:
    """limit: relative error of a head's output, 0 for none. note(text): tells the user."""

    def __init__(self, planner: Planner, limit: float, note):
        self._planner, self._limit, self._note = planner, limit, note
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
        heads, model = self._planner.get(key).heads, self._planner.profile.model
        most = int(DENSE_SHARE * model.layers * model.heads)
        raised, changed = self.raised.setdefault(key.layer, {}), {}
        for head in map(int, np.flatnonzero(relative_error(self._sums[key]) > self._limit)):
            if heads[head].density >= ALL_BLOCKS:
                continue
            if head not in raised:
                if sum(map(len, self.raised.values())) >= most:
                    if not self._capped:
                        self._note(CAPPED.format(limit=self._limit))
                    self._capped = True
                    continue
                self._note(DENSER.format(limit=self._limit))
            # Once denser, then dense: a head that twice the density does not help is spread out.
            changed[head] = 1.0 if head in raised else min(1.0, 2 * heads[head].density)
            raised[head] = changed[head]
        return changed

    def _raise(self, key: Key, changed: dict[int, float]) -> None:
        planner, heads = self._planner, list(self._planner.get(key).heads)
        planner.use(with_densities(planner.profile, {key.layer: self.raised[key.layer]}))
        denser = planner.heads(planner.profile, key, list(changed))
        for head, plan in zip(changed, denser, strict=True):
            heads[head] = plan
        planner.replace(key, planner.mixed(key, heads))
        self.forget(key)
