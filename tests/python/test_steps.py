"""Which step a sigma belongs to, and what that step may do."""

import itertools

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


# -- lists that do not fall ------------------------------------------------------------------------


def walk(sigmas, calls=None, told=True):
    """Steps of a sampler's calls; it says after each step's first one which step it is in."""
    run, found = Steps(sigmas, Settings()), []
    for step, own in enumerate(calls or [[sigma] for sigma in sigmas[:-1]]):
        for place, sigma in enumerate(own):
            found.append(run.index(sigma))
            if told and place == 0:
                run.came_to(step)
    return found


RISING = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
TURNING = [0.9, 0.6, 0.3, 0.6, 0.3, 0.6, 0.3, 0.0]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    "sigmas",
    [
        RISING,
        TURNING,
        [0.0, 0.3, 0.9],
        [0.0, 0.0, 0.5],
        [0.9, 0.5, 0.0, 0.0],
        [0.5] * 6,
        [14.6, 6.3, 6.3, 2.1, 0.03],
        [0.03, 0.6, 2.1, 14.6],
        [0.9, 0.3, 0.6],
    ],
    ids=str,
)
def test_one_call_a_step_on_any_list(sigmas, told):
    count = len(sigmas) - 1
    assert walk(sigmas, told=told) == list(range(count))
    rounded = torch.tensor(sigmas).tolist()
    assert walk(sigmas, [[sigma] for sigma in rounded[:-1]], told=told) == list(range(count))


@pytest.mark.parametrize("sigmas", [RISING, TURNING, [0.9, 0.5, 0.5, 0.5, 0.2]], ids=str)
def test_a_second_call_at_a_steps_end_is_the_next_steps(sigmas):
    calls = [[start, end] for start, end in itertools.pairwise(sigmas)]
    last = len(calls) - 1
    want = [step for first in range(last + 1) for step in (first, min(first + 1, last))]
    assert walk(sigmas, calls) == want


@pytest.mark.parametrize("sigmas", [RISING, TURNING], ids=str)
def test_a_call_in_the_middle_of_a_step_is_its_own(sigmas):
    calls = [[start, (start + end) / 2] for start, end in itertools.pairwise(sigmas)]
    for told in (True, False):
        want = [step for step in range(len(calls)) for _ in range(2)]
        assert walk(sigmas, calls, told) == want


def test_outside_of_a_rising_list():
    assert [steps(RISING).index(sigma) for sigma in (0.1, 0.97)] == [0, 7]


def test_a_sampler_that_counts_steps_of_its_own_is_not_believed():
    run = steps(RISING)
    run.index(0.2), run.came_to(0)
    run.index(0.75), run.came_to(1)
    assert run.index(0.85) == 6
    run.came_to(400)
    assert run.index(0.9) == 7


def test_a_restart_of_an_inner_sampler_finds_its_step_by_sigma():
    assert [steps().index(sigma) for sigma in (1.0, 0.7, 0.9, 0.7, 0.4)] == [0, 2, 1, 2, 3]


def test_a_sigma_that_is_no_number_belongs_where_the_sampler_is():
    run = steps(RISING)
    assert [run.index(sigma) for sigma in (0.4, float("nan"), 0.5)] == [2, 2, 3]


@pytest.mark.parametrize(
    ("sigmas", "groups"),
    [
        (RISING, [(0.95, 0.5), (0.5, 0.2)]),
        ([0.2, 0.5, 0.9], [(0.9, 0.35), (0.35, 0.2)]),
        (TURNING, [(0.9, 0.6), (0.6, 0.0)]),
        ([0.5, 0.5, 0.5], [(0.5, 0.499999)]),
        ([0.0, 0.0], [(1e-6, 0.0)]),
    ],
    ids=str,
)
def test_timestep_groups_of_any_list(sigmas, groups):
    assert steps(sigmas).groups(halves=True) == [pytest.approx(one) for one in groups]
