"""What is asked is what runs: heads with a density of their own are paid for by the others."""

import numpy as np
import pytest
from paroattention import _core
from paroattention.plan import head_densities
from paroattention.plan.renewal import with_densities
from problems import profile


def with_own(own: dict[int, float], heads=8):
    """A profile of two layers; own: densities of the first layer's heads."""
    return with_densities(profile(heads=heads), {"double.0.0": own})


@pytest.mark.parametrize(
    ("own", "asked", "free"),
    [
        ({}, 0.3, 0.3),
        ({0: 1.0}, 0.3, 3.8 / 15),
        ({0: 1.0, 1: 0.5}, 0.2, 1.7 / 14),
        ({0: 0.1}, 0.9, 14.3 / 15),
        # Less than the least is given to none.
        (dict.fromkeys(range(4), 1.0), 0.2, head_densities.LEAST_DENSITY),
        ({0: 0.05, 1: 0.05}, 1.0, 1.0),
    ],
)
def test_all_heads_together_have_what_was_asked_for(own, asked, free):
    built = with_own(own)
    assert head_densities.free_density(built, asked) == pytest.approx(free)
    every = [own.get(head, free) if layer == 0 else free for layer in (0, 1) for head in range(8)]
    least = [own.get(head, 0.05) if layer == 0 else 0.05 for layer in (0, 1) for head in range(8)]
    assert head_densities.least_total(built) == pytest.approx(np.mean(least))
    if free not in (0.05, 1.0):
        assert np.mean(every) == pytest.approx(asked)


def test_a_profile_whose_heads_all_have_their_own_is_left_alone():
    every = dict.fromkeys(range(2), 0.4)
    built = with_densities(profile(), {"double.0.0": every, "double.1.0": every})
    assert head_densities.free_density(built, 0.3) == 0.3


@pytest.mark.parametrize(
    ("heads", "asked", "count", "each"),
    [
        (16, 0.3, 2, 1.0),
        (16, 0.2, 2, 0.8),
        (1600, 0.3, 240, 1.0),
        (16, 1.0, 4, 1.0),
        (2, 0.3, 1, 0.3),
    ],
)
def test_what_rules_may_give(heads, asked, count, each):
    assert head_densities.for_spread_heads(heads, asked) == (count, pytest.approx(each))


def test_what_is_affordable():
    built = with_own({0: 1.0})
    assert head_densities.affordable(built, 0.3, 1.4) and not head_densities.affordable(
        built, 0.3, 1.5
    )


def test_plans_of_a_grid_come_to_it():
    built = with_own({0: 1.0, 3: 0.8})
    free = head_densities.free_density(built, 0.3)
    grid = (6, 16, 20)
    plans = [_core.plan_layer(built, place, 0, grid, density=free) for place in (0, 1)]
    assert np.mean([plan.density for plan in plans]) == pytest.approx(0.3, rel=0.01)
