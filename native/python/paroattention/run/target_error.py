"""density "auto": the least density whose measured error is the one that the user asked for."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..heads import Heads, checked
from ..learn.budget import LADDER, Budget, Curves, Maps
from ..plan.dynamic import curves_for
from ..plan.planning import Key, Planner
from ..plan.profile_copy import with_densities
from ..settings import Settings


class TargetError:
    """Measures curves of error against density at the first sparse step and once in the second
    half, and spends them."""

    def __init__(self, settings: Settings, planner: Planner):
        self._settings, self._planner = settings, planner
        # (step, mean density, predicted error) of what was chosen.
        self.budgets: list[tuple[int, float, float]] = []
        # Whether the step under way is measured.
        self.measuring = False
        self._due = True
        # Densities that a user or an earlier rule gave a head: not ours to choose.
        self._fixed: dict[tuple[str, int], float] = {}
        # Of the step under way, what static masks are chosen by.
        self._maps: dict[Key, Maps] = {}

    def begin_step(self, sampling: bool, crossed: bool) -> None:
        """crossed: the second half of the run begins."""
        self._due = self._due or crossed
        self.measuring = self._settings.automatic and sampling and self._due

    def keep(self, profile: _core.Profile) -> None:
        """Densities that the heads of this profile have of their own stay."""
        self._fixed |= {
            (layer.id, place): head.density
            for layer in profile.layers
            for place, head in enumerate(layer.heads)
            if head.density is not None
        }

    def forget_kept(self) -> None:
        self._fixed = {}

    def curves(
        self, key: Key, q, k, scale: float, heads: Heads | None = None
    ) -> tuple[Curves | None, Maps | None]:
        """What one call's samples are to be added to, and with which maps, both of the heads in q
        (None: all); None unless the step is measured."""
        if not self.measuring:
            return None, None
        heads = checked(heads, q.shape[1])
        maps = self._maps_of(key, q, k, scale, heads)
        return curves_for(self._settings, len(heads.numbers), scale), maps

    def _maps_of(self, key: Key, q, k, scale: float, heads: Heads) -> Maps:
        planner = self._planner
        if self._settings.dynamic:
            # Masks that are found are other ones in every call.
            return planner.maps(key, q, k, scale, heads)
        every = self._static_maps(key, q, k, scale)
        return lambda places: every([heads.numbers[place] for place in places])

    def _static_maps(self, key: Key, q, k, scale: float) -> Maps:
        planner, known = self._planner, self._maps
        if key not in known:
            known[key] = planner.maps(key, q, k, scale)
            # All calls of the step are measured by what was known at the first one.
            if key.layer in planner.seen:
                planner.seen[key.layer].lend(lambda: self._maps is known)
        return known[key]

    def end_step(self, curves: dict[str, Curves]) -> None:
        self._maps = {}
        if curves:
            self._due = False

    def spend(self, curves: dict[str, Curves], step: int) -> None:
        """One density for all heads that are ours to choose, by the measured curves."""
        budget, target = Budget(curves, self._fixed), self._settings.target_error
        value = budget.even(target)
        error = target if value > LADDER[0] else budget.predicted(budget.uniform(LADDER[0]))
        chosen = [self._fixed.get(name, value) for name in budget.heads]
        self.budgets.append((step, float(np.mean(chosen)), error))
        self._planner.use(with_densities(self._planner.profile, budget.densities(value)))
        self._planner.forget()
