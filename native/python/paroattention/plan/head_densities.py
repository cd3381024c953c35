"""How the density that was asked for is spread over a profile's heads.

Some heads have a density of their own: the user's, or 1 where no order gathers what they look at.
Of the latter as many are dense as the density affords. The others share what is left, so that all
heads together compute the share of blocks that was asked for.
"""

from __future__ import annotations

from .. import _core
from ..limits import ALL_BLOCKS

# Where it is judged how far a head is spread, whatever density runs.
SPREAD_DENSITY = 0.3
# No head is given less than this; settings ask for no less either.
LEAST_DENSITY = 0.05
# Rules give heads a density of their own up to this share of what was asked for, and to this share
# of all heads.
BUDGET_SHARE, HEAD_SHARE = 0.5, 0.25


def _own(profile: _core.Profile) -> list[float | None]:
    return [head.density for layer in profile.layers for head in layer.heads]


def free_density(profile: _core.Profile, asked: float) -> float:
    """Density of the heads that have none of their own, so that all heads together have the one
    that was asked for; LEAST_DENSITY where that would need less."""
    own = _own(profile)
    given = [density for density in own if density is not None]
    free = len(own) - len(given)
    if not given or not free:
        return asked
    return min(1.0, max(LEAST_DENSITY, (asked * len(own) - sum(given)) / free))


def least_total(profile: _core.Profile) -> float:
    """The least density that all heads together can have: what is their own stays."""
    own = _own(profile)
    least = [LEAST_DENSITY if density is None else density for density in own]
    return sum(least) / max(1, len(least))


def kept_mass(head: _core.ProfileHead) -> float:
    """Share of its attention that a head keeps at SPREAD_DENSITY, mean of its timestep groups."""
    place = _core.MASS_DENSITIES.index(SPREAD_DENSITY)
    return sum(group.mass[place] for group in head.groups) / len(head.groups)


def afforded(profile: _core.Profile, asked: float) -> dict[str, dict[int, float | None]]:
    """Densities of the heads that are dense and not locked, by layer and head: what a run at this
    density can give them. Those that are spread most come first; the rest get none of their own.

    Few heads at 1 are better than more of them at less. But where less than half a head would be
    left out it is better to have it, and to give all of them a little less.
    """
    heads = [(layer.id, place, head) for layer in profile.layers
             for place, head in enumerate(layer.heads)]  # fmt: skip
    dense = [one for one in heads if (one[2].density or 0) >= ALL_BLOCKS and not one[2].locked]
    budget = _budget(len(heads), asked)
    count = max(1, round(budget))
    if len(dense) <= budget:
        return {}
    dense.sort(key=lambda one: kept_mass(one[2]))
    each = max(asked, min(1.0, budget / count))
    found: dict[str, dict[int, float | None]] = {}
    for number, (layer, place, _) in enumerate(dense):
        found.setdefault(layer, {})[place] = each if number < count else None
    return found


def affordable(profile: _core.Profile, asked: float, more: float) -> bool:
    """Whether heads may be given so much more of their own, in sums of densities."""
    own = _own(profile)
    given = sum(density for density in own if density is not None)
    return given + more <= _budget(len(own), asked) + 1e-9


def _budget(heads: int, asked: float) -> float:
    """The most that rules may spend on heads of their own choice, as a sum of densities."""
    return min(HEAD_SHARE, BUDGET_SHARE * asked) * heads
