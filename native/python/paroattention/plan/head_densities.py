"""How the density that was asked for is spread over a profile's heads.

Some heads have a density of their own: the user's, or 1 where no order gathers what they look at.
The others share what is left, so that all heads together compute the share of blocks that was asked
for.
"""

from __future__ import annotations

from .. import _core

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


def for_spread_heads(heads: int, asked: float) -> tuple[int, float]:
    """(how many of a model's heads, the density of each) that rules may give to heads which no
    order gathers. Few heads at 1 are better than more of them at less; but where less than half a
    head would be left out, it is better to have it and to give all of them a little less."""
    budget = _budget(heads, asked)
    count = max(1, round(budget))
    return count, max(asked, min(1.0, budget / count))


def affordable(profile: _core.Profile, asked: float, more: float) -> bool:
    """Whether heads may be given so much more of their own, in sums of densities."""
    own = _own(profile)
    given = sum(density for density in own if density is not None)
    return given + more <= _budget(len(own), asked) + 1e-9


def _budget(heads: int, asked: float) -> float:
    """The most that rules may spend on heads of their own choice, as a sum of densities."""
    return min(HEAD_SHARE, BUDGET_SHARE * asked) * heads
