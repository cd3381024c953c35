"""What is asked is what runs: heads with a density of their own are paid for by the others."""

import numpy as np
import pytest
from paroattention import _core
from paroattention.plan import head_densities
from paroattention.plan.profile_copy import with_densities
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
    ("dense", "asked", "given"),
    [
        # A quarter of all heads at most, and half of the density.
        (2, 0.3, [1.0, 1.0]),
        (3, 0.3, [1.0, 1.0, None]),
        (4, 1.0, [1.0] * 4),
        (2, 0.2, [0.8, 0.8]),
        (4, 0.2, [0.8, 0.8, None, None]),
        (1, 0.05, [0.4]),
        (0, 0.3, []),
    ],
)
def test_as_many_heads_are_dense_as_the_density_affords(dense, asked, given):
    """The most spread ones first."""
    built = profile(heads=8, seed=3)
    spread = sorted(
        range(8), key=lambda head: head_densities.kept_mass(built.layers[0].heads[head])
    )
    built = with_densities(built, {"double.0.0": dict.fromkeys(spread[:dense], 1.0)})
    found = with_densities(built, head_densities.afforded(built, asked))
    own = [found.layers[0].heads[head].density for head in spread]
    wanted = [None if one is None else pytest.approx(one) for one in given]
    assert own == wanted + [None] * (8 - dense)
    # What was found or saved stays as it is.
    assert [built.layers[0].heads[head].density for head in spread[:dense]] == [1.0] * dense


def test_heads_that_a_user_locked_or_gave_another_density_keep_it():
    built = with_densities(profile(heads=8), {"double.0.0": dict.fromkeys(range(6), 1.0)})
    layer, other = built.layers
    heads = list(layer.heads)
    for head in heads[:5]:
        head.locked = True
    heads[5].density = 0.9
    built.layers = [_core.ProfileLayer(layer.id, heads), other]
    assert head_densities.afforded(built, 0.2) == {}


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
