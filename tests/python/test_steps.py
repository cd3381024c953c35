"""Which step a sigma belongs to, and what that step may do."""

import pytest
import torch
from paroattention import Settings
from paroattention.steps import Forward, Steps

SIGMAS = [1.0, 0.9, 0.7, 0.4, 0.0]


def steps(sigmas=SIGMAS, **settings):
    return Steps(sigmas, Settings(**settings))


@pytest.mark.parametrize(
    ("sigma", "index"),
    [(1.0, 0), (0.95, 0), (0.9, 1), (0.71, 1), (0.7, 2), (0.4, 3), (0.1, 3), (0.0, 3), (5.0, 0)],
    ids=str,
)
def test_index_is_the_interval_that_holds_sigma(sigma, index):
    assert steps().index(sigma) == index


def test_rounding_does_not_move_a_step():
    """float32, float16 schedules and a rescaling: a hair below an edge is still that edge."""
    sigmas = torch.linspace(1, 0, 51).tolist()
    for index, sigma in enumerate(sigmas[:-1]):
        there_and_back = float(torch.tensor(sigma) * 1000 / 1000)
        assert steps(sigmas).index(there_and_back) == index
        assert steps(sigmas).index(sigma * (1 - 3e-6)) == index


def test_large_sigmas():
    karras = [14.6146, 6.3, 2.1, 0.6, 0.03, 0.0]
    assert [steps(karras).index(s) for s in (14.6146, 10, 6.3, 0.6, 0.031, 0.03)] == [
        0, 0, 1, 3, 3, 4,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sigmas", "count"), [(SIGMAS, 4), ([1.0, 0.0], 1), ([1.0], 1)], ids=["run", "one step", "none"]
)
def test_count(sigmas, count):
    assert steps(sigmas).count == count
    assert steps(sigmas).index(sigmas[-1]) == count - 1


@pytest.mark.parametrize(
    ("start", "end", "allowed"),
    [
        (0, 1, [True, True, True, True]),
        (0.5, 1, [False, False, True, True]),
        (0, 0.5, [True, True, False, False]),
        (0.25, 0.75, [False, True, True, False]),
        (0.3, 0.8, [False, False, True, True]),
        (1, 1, [False] * 4),
        (0, 0, [False] * 4),
        (0.5, 0.5, [False] * 4),
    ],
)
def test_percents_are_shares_of_the_steps(start, end, allowed):
    run = steps(start_percent=start, end_percent=end)
    assert [run.allowed(step) for step in range(4)] == allowed


@pytest.mark.parametrize("count", [3, 7, 10, 30, 50])
def test_percents_land_on_whole_steps_whatever_the_count(count):
    """A share that names a step exactly takes it, however the division rounds."""
    for first in range(count + 1):
        run = steps(list(range(count, -1, -1)), start_percent=first / count)
        assert [run.allowed(step) for step in range(count)] == [s >= first for s in range(count)]


def test_groups_are_all_or_two_halves():
    assert steps().groups(halves=False) == [(1.0, 0.0)]
    assert steps().groups(halves=True) == [(1.0, 0.7), (0.7, 0.0)]


@pytest.mark.parametrize("sigmas", [[1.0, 0.0], [1.0, 1.0, 0.0], [0.5]], ids=str)
def test_groups_of_short_runs_are_valid_ranges(sigmas):
    for high, low in steps(sigmas).groups(halves=True):
        assert high > low


def test_layer_ids_count_occurrences_within_one_evaluation():
    forward = Forward(0, 1.0)
    assert [forward.layer_id("double", index) for index in (0, 1, 0, 0)] == [
        "double.0.0", "double.1.0", "double.0.1", "double.0.2",
    ]  # fmt: skip
    assert forward.layer_id("single", 0) == "single.0.0"
    assert Forward(0, 1.0).layer_id("double", 0) == "double.0.0"
