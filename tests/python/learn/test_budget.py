"""Densities by measured error: curves, what a budget buys, and a run that aims at a target."""

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, TokenLayout, _core, attention, reference
from paroattention.learn import sampling
from paroattention.learn.budget import LADDER, Budget, Curves
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
    curves = Curves(maps, 64, 64, sm_scale=SCALE, tail=tail)
    places = torch.arange(layout.grid_size).expand(len(orders), -1)
    for sampled in sampling.sample(q, k, layout, [places] * q.shape[0], SCALE):
        curves.add(sampled, k, v)
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
    curves = Curves([None] * len(rows), 64, 64, sm_scale=1.0, tail=True)
    for head, (start, power) in enumerate(rows):
        curves.lost[head] = start * (1 - np.array(LADDER)) ** power
        curves.whole[head] = 1.0
    return curves


UNEQUAL = {"a": made_curves((0.5, 20), (0.5, 1)), "b": made_curves((0.01, 4), (0.3, 8))}


def test_a_target_is_met_at_no_more_than_uniform_density():
    budget = Budget(UNEQUAL)
    for target in (0.4, 0.2, 0.1, 0.05):
        places = budget.spend(target=target)
        assert budget.predicted(places) <= target
        uniform = next(
            budget.uniform(d) for d in LADDER if budget.predicted(budget.uniform(d)) <= target
        )
        assert budget.mean(places) <= budget.mean(uniform)


@pytest.mark.parametrize("mean", [0.1, 0.2, 0.3, 0.5])
def test_a_mean_is_kept_with_less_error_than_uniform_density(mean):
    budget = Budget(UNEQUAL)
    places = budget.spend(mean=mean)
    assert budget.mean(places) <= mean + 1e-9
    assert budget.predicted(places) < budget.predicted(budget.uniform(mean))


def test_what_is_fixed_stays():
    budget = Budget(UNEQUAL, {("a", 1): 1.0, ("b", 0): 0.05})
    places = budget.spend(target=0.2)
    assert LADDER[places[1]] == 1.0 and LADDER[places[2]] == 0.05
    chosen = budget.densities(np.array(LADDER)[places])
    assert set(chosen) == {"a", "b"} and set(chosen["a"]) == {0} and set(chosen["b"]) == {1}


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


def test_heads_without_error_cost_nothing():
    curves = made_curves((0.0, 1), (0.9, 2))
    budget = Budget({"a": curves})
    places = budget.spend(target=0.1)
    assert LADDER[places[0]] == LADDER[0] and places[1] > 0


def test_an_unreachable_target_is_dense():
    budget = Budget(UNEQUAL)
    assert set(budget.spend(target=0.0)) == {len(LADDER) - 1}


# -- a run -----------------------------------------------------------------------------------------


def run(target, **settings):
    find, _ = finder(profile(grid=GRID))
    settings = {"precision": "bf16"} | settings
    settings = Settings(density="auto", target_error=target, **settings)
    host = Host(settings, grid=GRID, find_profile=find)
    return host, host.run()


@pytest.mark.parametrize("per_head", [False, True], ids=["one for all", "per head"])
@pytest.mark.parametrize("target", [0.45, 0.3])
def test_a_run_comes_to_its_target(target, per_head):
    host, summary = run(target, per_head=per_head)
    ((step, mean, predicted), *_) = host.session.watch.budgets
    assert step == 0 and predicted <= target
    # Measured on other queries than those that chose.
    assert summary["measured_error"] < 1.25 * target
    assert mean < 1 and not host.reasons()


def test_less_error_costs_more():
    means = [run(target)[0].session.watch.budgets[0][1] for target in (0.5, 0.3, 0.1)]
    assert means == sorted(means) and means[0] < means[-1]


def test_the_second_half_is_measured_again():
    host, _ = run(0.3)
    steps = [step for step, _, _ in host.session.watch.budgets]
    assert steps == [0, 3]


def test_without_samples_auto_stays_where_it_starts():
    _, summary = run(0.01, refresh=False)
    assert 0.2 < summary["density"] < 0.4


def test_an_observed_profile_is_saved_without_the_budgets_densities():
    host = Host(Settings(density="auto", target_error=0.2, observe_steps=2, dense_below=0.0))
    host.run(SIGMAS[:-1])
    assert host.session.watch.budgets and len(host.saved) == 2
    for saved in host.saved:
        assert all(head.density is None for layer in saved.layers for head in layer.heads)
        assert saved.defaults.density == 0.3
