"""Timestep groups go by sigma: other step counts, schedules and samplers find their half."""

import itertools
import math

import numpy as np
import pytest
from paroattention import Settings
from paroattention.steps import Steps
from problems import profile


def simple(count: int, shift: float = 3.0) -> list[float]:
    """Flow matching, shifted: count + 1 falling sigmas, the last one 0."""
    t = np.linspace(1, 0, count + 1)
    return (shift * t / (1 + (shift - 1) * t)).tolist()


def karras(count: int, low: float = 0.03, high: float = 14.6) -> list[float]:
    ramp = np.linspace(0, 1, count)
    return [*((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7).tolist(), 0.0]


def observed_with(sigmas: list[float]):
    """A profile of a calibration with this schedule."""
    return profile(groups=tuple(Steps(sigmas, Settings()).groups(halves=True)))


def groups_of(built, sigmas: list[float]) -> list[int]:
    return [built.timestep_group(sigma) for sigma in sigmas[:-1]]


@pytest.mark.parametrize("count", [2, 3, 5, 20, 21, 50])
def test_the_run_that_was_observed_falls_into_halves(count):
    sigmas = simple(count)
    assert groups_of(observed_with(sigmas), sigmas) == [int(i >= count // 2) for i in range(count)]


@pytest.mark.parametrize("schedule", [simple, karras])
@pytest.mark.parametrize("observed", [8, 20, 50])
@pytest.mark.parametrize("count", [4, 9, 20, 31, 100])
def test_another_step_count_has_its_half_in_each(schedule, observed, count):
    found = groups_of(observed_with(schedule(observed)), schedule(count))
    assert found == sorted(found)
    assert abs(found.count(0) - count / 2) <= 1 + count / observed


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0, 12.0])
def test_another_shift_maps_by_noise_not_by_step(shift):
    built = observed_with(simple(20))
    border = built.timestep_groups[0][1]
    for sigma in simple(30, shift)[:-1]:
        assert built.timestep_group(sigma) == int(sigma <= border)
    # More shift, more steps at high noise.
    first = groups_of(built, simple(30, shift)).count(0)
    assert first < 15 if shift < 3 else first > 15


def test_evaluations_between_two_steps_belong_to_one_of_them():
    """Heun, DPM-2, ancestral steps: the model is called between the schedule's sigmas, or above."""
    sigmas = simple(20)
    built = observed_with(simple(12))
    for high, low in itertools.pairwise(sigmas[:-1]):
        around = {built.timestep_group(high), built.timestep_group(low)}
        for between in ((high + low) / 2, math.sqrt(high * low), low + 1e-9, high - 1e-9):
            assert built.timestep_group(between) in around
    assert built.timestep_group(80.0) == 0 and built.timestep_group(0.0) == 1


def test_a_sigma_in_float32_stays_in_its_group():
    for count in range(2, 60):
        sigmas = simple(count)
        built = observed_with(sigmas)
        want = groups_of(built, sigmas)
        assert groups_of(built, np.float32(sigmas).astype(float).tolist()) == want
        assert groups_of(built, [sigma * 1000 / 1000 * (1 + 2e-6) for sigma in sigmas]) == want


def test_a_run_without_halves_has_one_group():
    built = observed_with([1.0, 0.0])
    assert len(built.timestep_groups) == 1
    assert {built.timestep_group(sigma) for sigma in (2.0, 1.0, 0.5, 0.0)} == {0}
