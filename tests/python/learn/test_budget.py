"""Densities by measured error: curves, what a budget buys, and a run that aims at a target."""

import weakref

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, TokenLayout, _core, attention, reference
from paroattention.learn import sampling
from paroattention.learn.budget import LADDER, Budget, Curves
from paroattention.plan.dynamic import planner_for
from paroattention.run.readings import sum_curves
from plan_reference import plan_head
from problems import profile, tensors

GRID = (6, 8, 8)
SCALE = 64**-0.5


def curves_of(qkv, layout, orders, tail, seed=0):
    """Curves of every query, and the importance they are measured on."""
    q, k, v = qkv
    draws = np.random.default_rng(seed)
    blocks = -(-layout.grid_size // 64)
    maps = [(order, draws.random((blocks, blocks)).astype(np.float32)) for order in orders]
    curves = Curves(len(maps), 64, 64, sm_scale=SCALE, tail=tail)
    places = torch.arange(layout.grid_size).expand(len(orders), -1)
    for sampled in sampling.sample(q, k, layout, [places] * q.shape[0], SCALE):
        curves.add(sampled, k, v, lambda heads: [maps[head] for head in heads])
    return curves, maps


@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
@pytest.mark.parametrize("layout", [TokenLayout(GRID, 5, 3), TokenLayout((1, 10, 17))], ids=str)
def test_curves_are_the_errors_of_our_own_output(layout, tail):
    """At every density what the kernels would give, prefix, suffix and a ragged block included."""
    qkv = tensors(2, layout.length, 64, batch=2)
    curves, maps = curves_of(qkv, layout, ["HFW", "WFH"], tail)
    dense = reference.dense(*qkv)
    grid = slice(layout.prefix, layout.prefix + layout.grid_size)
    for place, density in enumerate(LADDER):
        heads = [plan_head(importance, order, density) for order, importance in maps]
        plan = _core.Plan(layout.grid, prefix=layout.prefix, suffix=layout.suffix, heads=heads)
        out = attention(*qkv, plan, precision="bf16", tail=tail)
        lost = (out.double() - dense)[:, :, grid].square().sum((0, 2, 3)).numpy()
        assert np.allclose(curves.lost[:, place], lost, rtol=2e-2, atol=1e-6 * curves.whole.max())
    whole = dense[:, :, grid].square().sum((0, 2, 3)).numpy()
    assert np.allclose(curves.whole, whole, rtol=1e-4)


def made_curves(*rows):
    """Curves of one layer whose heads have these errors at density .05, falling to 0 at 1."""
    curves = Curves(len(rows), 64, 64, sm_scale=1.0, tail=True)
    for head, (start, power) in enumerate(rows):
        curves.lost[head] = start * (1 - np.array(LADDER)) ** power
        curves.whole[head] = 1.0
    return curves


UNEQUAL = {"a": made_curves((0.5, 20), (0.5, 1)), "b": made_curves((0.01, 4), (0.3, 8))}


def test_what_is_fixed_stays():
    budget = Budget(UNEQUAL, {("a", 1): 1.0, ("b", 0): 0.05})
    places = budget.uniform(0.3)
    assert [LADDER[place] for place in places] == [0.3, 1.0, 0.05, 0.3]
    assert budget.densities(0.3) == {"a": {0: 0.3}, "b": {1: 0.3}}


@pytest.mark.parametrize("target", [0.5, 0.3, 0.1, 0.02])
def test_one_density_for_all_comes_to_the_target(target):
    """Between two places of the ladder whose errors hold the target between them."""
    budget = Budget(UNEQUAL, {("a", 1): 1.0})
    density = budget.even(target)
    below = max((d for d in LADDER if d <= density), default=LADDER[0])
    above = min(d for d in LADDER if d >= density)
    assert budget.predicted(budget.uniform(above)) <= target + 1e-9
    assert density == LADDER[0] or budget.predicted(budget.uniform(below)) >= target - 1e-9


def test_one_density_for_all_at_the_ends():
    assert Budget(UNEQUAL).even(0.0) == 1.0 and Budget(UNEQUAL).even(10.0) == LADDER[0]


# -- a run -----------------------------------------------------------------------------------------


def run(target, **settings):
    find, _ = finder(profile(grid=GRID))
    settings = {"precision": "bf16"} | settings
    settings = Settings(density="auto", target_error=target, **settings)
    host = Host(settings, grid=GRID, find_profile=find)
    return host, host.run()


@pytest.mark.parametrize("target", [0.45, 0.3])
def test_a_run_comes_to_its_target(target):
    host, summary = run(target)
    ((step, mean, predicted), *_) = host.session.watch.target.budgets
    assert step == 0 and predicted <= target
    # Measured on other queries than those that chose.
    assert summary["measured_error"] < 1.25 * target
    assert mean < 1 and not host.reasons()


def test_less_error_costs_more():
    means = [run(target)[0].session.watch.target.budgets[0][1] for target in (0.5, 0.3, 0.1)]
    assert means == sorted(means) and means[0] < means[-1]


def measured_step(**settings):
    """A host whose first step, a measured one, is under way, with one call of each layer."""
    find, _ = finder(profile(grid=GRID))
    settings = {"density": "auto", "target_error": 0.3, "precision": "bf16"} | settings
    host = Host(Settings(**settings), grid=GRID, find_profile=find)
    forward = host.session.begin_forward(1.0)
    for layer in host.layers:
        host.call(forward, layer, tensors(2, host.layout.length, 64))
    assert host.session.watch.target.measuring
    return host


@pytest.mark.parametrize("mask", ["static", "dynamic"])
def test_maps_do_not_outlive_their_call(monkeypatch, mask):
    """Those of all layers of a long video would take a hundred gigabytes."""
    alive, kind = [], planner_for(Settings(mask=mask)).__class__
    maps = kind.maps

    def noted(*given):
        of = maps(*given)

        def noted_of(heads):
            found = of(heads)
            alive.extend(weakref.ref(importance) for _, importance in found)
            return found

        return noted_of

    monkeypatch.setattr(kind, "maps", noted)
    host = measured_step(mask=mask)
    assert alive and not [one for one in alive if one() is not None]
    curves = sum_curves(host.session.watch._readings)
    assert curves.keys() == set(host.layers) and all(one.lost.any() for one in curves.values())


def test_all_calls_of_a_step_are_measured_by_the_same_maps():
    """Samples that come meanwhile count from the next measured step on."""
    host = measured_step()
    watch, planner = host.session.watch, host.session.planner
    layer = host.layers[0]
    (key,) = (key for key in planner.plans() if key.layer == layer)
    q = tensors(2, host.layout.length, 64)[0]
    seen = watch.blocks.of(key)
    seen.add_many([0], torch.tensor([[5]]), torch.ones(1, 1, seen.cols))
    first = watch.target.curves(key, q, q, SCALE)[1]([0])[0][1]
    watch.target.end_step({})
    watch.target._due = True
    watch.target.begin_step(True, False)

    def importance():
        return watch.target.curves(key, q, q, SCALE)[1]([0])[0][1]

    before = importance()
    seen.add_many([0], torch.tensor([[5]]), 50 * torch.ones(1, 1, seen.cols))
    assert np.array_equal(importance(), before)
    watch.target.end_step({})
    assert not np.array_equal(importance(), before) and not np.array_equal(first, before)


def test_the_second_half_is_measured_again():
    host, _ = run(0.3)
    steps = [step for step, _, _ in host.session.watch.target.budgets]
    assert steps == [0, 3]


def test_without_samples_auto_stays_where_it_starts():
    _, summary = run(0.01, refresh=False)
    assert 0.2 < summary["density"] < 0.4


def test_an_observed_profile_is_saved_without_the_budgets_densities():
    host = Host(Settings(density="auto", target_error=0.2, observe_steps=2, dense_below=0.0))
    host.run(SIGMAS[:-1])
    assert host.session.watch.target.budgets and len(host.saved) == 2
    for saved in host.saved:
        assert all(head.density is None for layer in saved.layers for head in layer.heads)
        assert saved.defaults.density == 0.3
