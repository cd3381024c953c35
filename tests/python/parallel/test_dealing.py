"""Heads are dealt out: each one once, the same on every machine, near the even share."""

from __future__ import annotations

import itertools
import random

import pytest
from paroattention import Error
from paroattention.parallel.dealing import deal, even

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402


def given(strategy):
    """The same inputs each time: a failure is the change's."""
    always = hypothesis.settings(derandomize=True, deadline=None, max_examples=40)
    return lambda test: always(hypothesis.given(strategy)(test))


@st.composite
def problems(draw):
    heads = draw(st.integers(1, 56))
    ranks = draw(st.integers(1, min(16, heads)))
    loads = draw(st.lists(st.integers(1, 4000), min_size=heads, max_size=heads))
    return loads, ranks, draw(st.booleans())


@given(problems())
def test_every_head_is_computed_once_and_every_rank_has_one(problem):
    loads, ranks, equal = problem
    dealt = deal(loads, ranks, equal=equal)
    assert sorted(dealt.permutation) == list(range(len(loads)))
    assert all(list(own) == sorted(own) and own for own in dealt.heads)
    assert dealt.loads == tuple(sum(loads[head] for head in own) for own in dealt.heads)
    assert [dealt.permutation[place] for place in dealt.inverse] == list(range(len(loads)))
    if equal:
        assert max(dealt.counts) - min(dealt.counts) <= 1


@given(problems())
def test_the_same_loads_are_dealt_the_same_way(problem):
    loads, ranks, equal = problem
    random.seed(len(loads))  # whatever else a process draws
    assert deal(loads, ranks, equal=equal) == deal(list(loads), ranks, equal=equal)


@given(problems())
def test_no_rank_has_more_than_the_mean_and_its_last_head(problem):
    """The bound of dealing to the lightest rank: that had the mean at most before its last head."""
    loads, ranks, equal = problem
    dealt = deal(loads, ranks, equal=equal)
    if not equal:
        assert max(dealt.loads) <= sum(loads) / ranks + max(loads) * (1 - 1 / ranks) + 1e-9
    assert max(dealt.loads) <= max(even(len(loads), ranks, loads).loads)


@given(problems())
def test_no_single_move_or_exchange_would_help(problem):
    """Between the heaviest rank and any other."""
    loads, ranks, equal = problem
    dealt = deal(loads, ranks, equal=equal)
    heavy = max(range(ranks), key=dealt.loads.__getitem__)
    if dealt.heads == even(len(loads), ranks).heads:
        return
    for light, head in itertools.product(range(ranks), dealt.heads[heavy]):
        for other in () if light == heavy else (dealt.heads[light]):
            gain = loads[head] - loads[other]
            if gain > 0:
                assert max(dealt.loads) <= max(dealt.loads[heavy] - gain, dealt.loads[light] + gain)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_it_is_near_the_best_there_is(ranks):
    """Small enough to try every dealing."""
    loads = [40, 40, 9, 8, 8, 7, 7, 6]
    best = min(
        max(sum(load for load, rank in zip(loads, chosen, strict=True) if rank == one)
            for one in range(ranks))
        for chosen in itertools.product(range(ranks), repeat=len(loads))
        if len(set(chosen)) == ranks
    )  # fmt: skip
    assert max(deal(loads, ranks).loads) <= 1.05 * best


def test_two_heads_are_exchanged_for_one_where_that_helps():
    """Dealing one by one gives 7 + 4 and 6 + 3 + 3."""
    assert sorted(deal([7, 6, 4, 3, 3, 1], 2).loads) == [12, 12]


def test_few_moves_leave_most_heads_where_they_are():
    loads = [100, 100, *[20] * 38]
    plain, near, free = even(40, 8, loads), deal(loads, 8, few_moves=True), deal(loads, 8)
    stay = [
        sum(len(set(a) & set(b)) for a, b in zip(plain.heads, one.heads, strict=True))
        for one in (near, free)
    ]
    assert max(near.loads) == max(free.loads) < max(plain.loads)
    assert stay[0] >= 30 > stay[1]


def test_twelve_heads_on_eight_ranks():
    dealt = deal([10] * 12, 8)
    assert dealt.heads == even(12, 8).heads
    assert sorted(dealt.counts) == [1, 1, 1, 1, 2, 2, 2, 2]
    # One dense head among sparse ones has a rank of its own.
    dealt = deal([100, *[20] * 11], 8)
    assert dealt.heads[0] == (0,) and max(dealt.loads) == 100


def test_equal_loads_stay_in_a_row():
    assert deal([7] * 40, 8).permutation == tuple(range(40))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([1, 1], 3), "ranks must be at most the model's 2 heads.*got 3"),
        (([1, 0], 2), r"loads must be whole numbers above 0 \(got 0\)"),
        (([1, 1.5], 2), r"loads must be whole numbers above 0 \(got 1.5\)"),
        (([1, 1], 0), r"ranks must be a whole number from 1 to 1024 \(got 0\)"),
        (([], 1), "ranks must be at most the model's 0 heads"),
    ],
)
def test_bad_input_is_named(arguments, told):
    with pytest.raises(Error, match=told):
        deal(*arguments)
