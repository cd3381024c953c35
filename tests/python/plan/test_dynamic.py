"""mask dynamic in a session: masks found in every call, in a profile's orders, and what is told."""

import functools

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Settings, TokenLayout, _core, attention, reference
from paroattention.kernels import cuda_masks, observe_torch
from paroattention.kernels.head_orders import HeadOrders, OrderedHead
from paroattention.learn import sampling
from paroattention.plan import dynamic, head_densities
from paroattention.plan.profile_copy import with_densities, with_layers
from paroattention.run.readings import sum_curves
from problems import profile, tensors
from shifting import GRID, retained_at, run_shifted, shifted

SETTINGS = functools.partial(Settings, mask="dynamic")
SCALE = 64**-0.5
LAYOUTS = {
    "video": TokenLayout((3, 6, 8)),
    "odd": TokenLayout((3, 7, 9)),
    "text": TokenLayout((4, 9, 11), prefix=5, suffix=70),
    "image": TokenLayout((1, 13, 17), suffix=3),
    "one block": TokenLayout((1, 3, 5), prefix=2),
    # .7 of five blocks is 3.5, and a hair less as the kernels' float32.
    "five blocks": TokenLayout((4, 8, 9)),
}


def host_for(settings, layout=LAYOUTS["video"], built=None, **options):
    built = built or profile(grid=layout.grid)
    find, _ = finder(built)
    host = Host(settings, grid=layout.grid, find_profile=find, **options)
    host.layout = layout
    return host, built


def masks_of(built, layout, q, k, density, layer=0):
    """The Plan of the masks that these q and k ask for, in the profile's orders."""
    heads = built.layers[layer].heads
    densities = [density if head.density is None else head.density for head in heads]
    orders = [head.order for head in heads]
    own = TokenLayout(layout.grid, layout.prefix, layout.suffix)
    scores = observe_torch.block_scores(q, k, orders, own, (64, 64), SCALE)
    bits = observe_torch.select(scores, torch.tensor(densities)).numpy()
    plans = [_core.HeadPlan(o, _core.BlockMask(m)) for o, m in zip(orders, bits, strict=True)]
    return _core.Plan(layout.grid, prefix=layout.prefix, suffix=layout.suffix, heads=plans)


def with_orders(built, order):
    """The profile with this order for every head."""
    layers = []
    for layer in built.layers:
        heads = list(layer.heads)
        for head in heads:
            head.order = order
        layers.append(_core.ProfileLayer(layer.id, heads))
    return with_layers(built, layers)


# -- a call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_call_runs_the_masks_of_its_own_q_and_k(name, tail, batch):
    layout = LAYOUTS[name]
    host, built = host_for(SETTINGS(density=0.4, precision="bf16", tail=tail), layout)
    qkv = tensors(2, layout.length, 64, batch=batch, seed=3)
    out, ours = host.call(host.session.begin_forward(1.0), "double.0.0", qkv)
    plan = masks_of(built, layout, *qkv[:2], 0.4)
    assert ours and not host.reasons()
    assert reference.relative_error(out, reference.sparse(*qkv, plan, tail=tail)) < 1e-5
    (line,) = host.session.report.calls._lines.values()
    assert line["path"] == "sparse" and line["density"] == pytest.approx(plan.density, abs=1e-12)
    summary = host.session.report.summary()
    assert summary["density_total"] == pytest.approx(plan.density_total, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_int8_runs_the_same_masks(dtype):
    layout = LAYOUTS["text"]
    host, built = host_for(SETTINGS(density=0.4), layout)
    qkv = tensors(2, layout.length, 64, batch=2, dtype=dtype)
    out, ours = host.call(host.session.begin_forward(1.0), "double.0.0", qkv)
    plan = masks_of(built, layout, *qkv[:2], 0.4)
    assert ours and torch.equal(out, attention(*qkv, plan, precision="int8"))
    other = masks_of(built, layout, qkv[1], qkv[0], 0.4)
    assert not torch.equal(out, attention(*qkv, other, precision="int8"))


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_density_1_is_bit_equal_to_static(precision):
    outputs = []
    for mask in ("static", "dynamic"):
        host, _ = host_for(Settings(density=1.0, mask=mask, precision=precision), LAYOUTS["text"])
        qkv = tensors(2, host.layout.length, 64)
        outputs.append(host.call(host.session.begin_forward(1.0), "double.0.0", qkv)[0])
        assert host.session.report.summary()["density"] == 1
    assert torch.equal(*outputs)


def test_heads_with_densities_of_their_own_keep_them():
    layout = LAYOUTS["text"]
    built = profile(grid=layout.grid)
    built = with_densities(built, {"double.0.0": {0: 1.0}, "double.1.0": {0: 1.0, 1: 1.0}})
    layers = [(layer.id, list(layer.heads)) for layer in built.layers]
    for _, heads in layers:
        for head in heads:
            head.locked = head.density is not None  # a user's, to be kept at any cost
    built.layers = [_core.ProfileLayer(*one) for one in layers]
    host, _ = host_for(SETTINGS(density=0.3, precision="bf16"), layout, built)
    qkv = tensors(2, layout.length, 64)
    forward = host.session.begin_forward(1.0)
    out, _ = host.call(forward, "double.0.0", qkv)
    # Three dense heads of four are more than was asked for: the fourth gets the least there is.
    plan = masks_of(built, layout, *qkv[:2], head_densities.LEAST_DENSITY)
    assert plan.heads[0].density == 1 > 0.5 > plan.heads[1].density
    assert reference.relative_error(out, reference.sparse(*qkv, plan, tail=True)) < 1e-5
    # All of this layer's heads are dense: there is nothing to find.
    host.call(forward, "double.1.0", qkv)
    held = {key.layer: plan for key, plan in host.session.planner.plans().items()}
    assert isinstance(held["double.0.0"], HeadOrders)
    assert isinstance(held["double.1.0"], _core.Plan) and held["double.1.0"].density == 1
    assert host.session.report.count_heads() == (3, 4)


@pytest.mark.parametrize("densities", [(0.05, 0.7), (0.3, 0.3), (0.5, 1.0), (0.1, 0.9)], ids=str)
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_densities_are_known_before_the_masks_are(name, tile, densities):
    layout = LAYOUTS[name]
    q, k, _ = tensors(2, layout.length, 64)
    heads = tuple(OrderedHead(*pair) for pair in zip(("WHF", "HFW"), densities, strict=True))
    asked = HeadOrders(layout, heads, *tile)
    plan = cuda_masks.find_masks(q, k, asked, SCALE)
    assert (plan.block_q, plan.block_kv, plan.length) == (*tile, asked.length)
    assert [head.order for head in plan.heads] == ["WHF", "HFW"] and asked.head_count == 2
    assert asked.density == pytest.approx(plan.density, abs=1e-12)
    assert asked.density_total == pytest.approx(plan.density_total, abs=1e-12)


# -- a run -----------------------------------------------------------------------------------------


def test_masks_follow_heads_that_change_what_they_look_at_at_once():
    """Static masks learn of the change from samples of later steps (test_watching.py)."""
    settings = {"observe_steps": 2, "density": 0.2, "dense_below": 0.0}
    static, _ = run_shifted([0, 0, 3, 3, 3, 3], Settings(**settings))
    found, summary = run_shifted([0, 0, 3, 3, 3, 3], SETTINGS(**settings))
    assert retained_at(static, 2) < 0.5 < 0.95 < retained_at(found, 2)
    assert found.session.report.paths == {"observe": 4, "sparse": 8} and not found.reasons()
    assert summary["mask"] == "dynamic" and summary["renewals"] == []
    assert summary["density"] == pytest.approx(1 / 6)


def test_no_static_mask_is_made(monkeypatch):
    """Neither beside a GPU's last dense step nor for any call; no sampled row is kept for one."""

    def never(*given, **options):
        raise AssertionError("a static mask was made")

    for name in ("PlanBuilder", "plan_layer", "plan_head"):
        monkeypatch.setattr(_core, name, never)
    for on_device in (None, lambda q: True):
        host = Host(SETTINGS(observe_steps=2, density=0.2), grid=GRID)
        if on_device is not None:
            host.session.observer.on_device = on_device
        for sigma in SIGMAS[:-1]:
            host.evaluate(sigma)
            assert not host.session.planner.seen and not host.session.watch.blocks.waiting
        host.session.finish()
        assert host.session.report.paths == {"observe": 4, "sparse": 8} and not host.reasons()


def test_what_was_learned_is_saved():
    """Orders and kernels: the profile serves static runs too, in two halves once both were seen."""
    settings = SETTINGS(observe_steps=2, density=0.2, dense_below=0.0)
    host, _ = run_shifted([0, 0, 0, 3, 3, 3], settings)
    first, last = host.saved
    assert len(first.timestep_groups) == 1 and len(last.timestep_groups) == 2
    groups = last.layers[0].heads[0].groups
    assert groups[0].code != groups[1].code
    find, _ = finder(last)
    host, _ = run_shifted([0] * 3 + [3] * 3, Settings(density=0.2), find_profile=find)
    assert host.session.report.paths == {"sparse": 12}
    # Nothing was sampled, so nothing was learned since the observed steps.
    settings = SETTINGS(observe_steps=2, density=0.2, refresh=False)
    assert len(run_shifted([0] * 6, settings)[0].saved) == 1


@pytest.mark.parametrize("refresh", [True, False])
def test_what_is_told_is_measured_and_not_estimated(refresh):
    host, summary = run_shifted([0] * 6, SETTINGS(observe_steps=2, density=0.2, refresh=refresh))
    assert summary["retained"] is None
    sparse = [line for line in host.lines if line["path"] == "sparse"]
    sampled = [line for line in sparse if line["error"] is not None]
    assert bool(sampled) == refresh and len(sampled) < len(sparse)
    for line in sparse:
        assert (line["retained"] is None) == (line["error"] is None)
        assert line["density"] == pytest.approx(1 / 6)
    texts = [text for _, text in host.texts]
    assert any("density 0.17, masks found in every call (observed" in text for text in texts)
    assert any("measured: retained mass" in text for text in texts) == refresh
    if refresh:
        step = sampled[-1]["step"]
        last = np.mean([line["retained"] for line in sampled if line["step"] == step])
        assert summary["measured_retained"] == pytest.approx(last, abs=1e-3) and last > 0.95
    else:
        assert summary["measured_retained"] is None


def test_the_meter_reads_the_masks_that_ran():
    """Its retained mass is that of the call's own masks, by the exact map."""
    layout = TokenLayout(GRID)
    host, built = host_for(SETTINGS(density=0.3, queries=2 * layout.grid_size), layout)
    qkv = shifted(2)
    host.call(host.session.begin_forward(1.0), "double.0.0", qkv)
    host.session.watch.settle()
    (reading,) = host.session.watch.meter.history
    plan = masks_of(built, layout, *qkv[:2], 0.3)
    rows = torch.softmax(qkv[0] @ qkv[1].mT * SCALE, -1)[0]
    for head, kept in enumerate(reading["retained"]):
        tokens = sampling.permutation(GRID, plan.heads[head].order)[0]
        blocks = rows[head][tokens][:, tokens].view(6, 64, 6, 64).sum((1, 3)).numpy()
        want = blocks[plan.heads[head].mask.numpy()].sum() / blocks.sum()
        assert kept == pytest.approx(want, abs=0.02)


def test_heads_that_are_far_off_go_denser_and_the_others_pay():
    layout = TokenLayout((4, 8, 16))
    built = profile(grid=layout.grid, heads=8)
    host, _ = host_for(SETTINGS(density=0.3), layout, built, limit=0.05, heads=8)
    host.run()
    last = host.session.planner.profile
    own = [head.density for layer in last.layers for head in layer.heads if head.density]
    assert own and min(own) > 0.5 and sum(own) <= 0.15 * 16
    steps = {}
    for line in host.lines:
        steps.setdefault(line["step"], []).append(line["density"])
    # A row of 8 blocks has 1 to 8 of them: densities come in eighths.
    assert all(np.mean(one) == pytest.approx(0.3, abs=0.05) for one in steps.values())
    assert any(reason.startswith("heads with a measured") for reason in host.reasons())


def test_calls_on_two_grids_have_masks_of_their_own():
    """As context windows and areas do: near grids of one layer in one step."""
    host, built = host_for(SETTINGS(density=0.4, precision="bf16"))
    forward = host.session.begin_forward(1.0)
    for layout in (LAYOUTS["video"], TokenLayout((3, 6, 7)), TokenLayout((3, 6, 8), suffix=4)):
        qkv = tensors(2, layout.length, 64)
        dense = functools.partial(host.dense, *qkv)
        call = host.session.attention
        out, ours = call(forward, "double.0.0", *qkv, layout, dense)
        plan = masks_of(built, layout, *qkv[:2], 0.4)
        want = reference.sparse(*qkv, plan, tail=True)
        assert ours and reference.relative_error(out, want) < 1e-5


# -- a target error --------------------------------------------------------------------------------


def test_curves_are_those_of_the_masks_that_would_be_found():
    layout = LAYOUTS["text"]
    q, k, v = tensors(2, layout.length, 64)
    host, built = host_for(SETTINGS(), layout)
    planner = host.session.planner
    planner.use(built)
    maps = planner.maps(planner.key("double.0.0", 1.0, layout, q), q, k, SCALE)
    curves = dynamic.curves_for(SETTINGS(), 2, SCALE)
    assert type(curves) is dynamic.FoundCurves
    places = [torch.arange(layout.grid_size).expand(2, -1)]
    for sampled in sampling.sample(q, k, layout, places, SCALE):
        curves.add(sampled, k, v, maps)
    dense = reference.dense(q, k, v).double()
    grid = slice(layout.prefix, layout.prefix + layout.grid_size)
    for place, density in enumerate(dynamic.LADDER[:-1]):
        plan = masks_of(built, layout, q, k, density)
        out = reference.sparse(q, k, v, plan, tail=True).double()
        lost = (out - dense)[0, :, grid].square().sum((1, 2)).numpy()
        assert np.allclose(curves.lost[:, place], lost, rtol=1e-3)
    assert (curves.lost[:, -1] < 1e-6 * curves.whole).all()


def test_every_call_has_curves_of_its_own_masks():
    """Of two calls of a layer in one step, as cond and uncond are: one block of six, another one
    in each, holds all that a row looks at."""
    built = with_orders(profile(grid=GRID), "FHW")
    host, _ = host_for(SETTINGS(density="auto", tail=False), TokenLayout(GRID), built)
    forward = host.session.begin_forward(1.0)
    for frames in (0, 3):
        host.call(forward, "double.0.0", shifted(frames))
    curves = sum_curves(host.session.watch._readings)["double.0.0"]
    assert (curves.lost[:, dynamic.LADDER.index(0.2)] < 1e-3 * curves.whole).all()


@pytest.mark.parametrize("on_device", [False, True])
def test_a_target_error_chooses_the_density(on_device):
    densities = []
    for target in (0.5, 0.1):
        settings = SETTINGS(density="auto", target_error=target, precision="bf16")
        host, _ = host_for(settings, TokenLayout((4, 8, 8)))
        if on_device:
            host.session.observer.on_device = lambda q: True
        summary = host.run()
        assert summary["budgets"] and not host.reasons()
        assert summary["measured_error"] < 1.3 * target
        densities.append(host.lines[-1]["density"])
    assert densities[0] < densities[1]


# -- what goes wrong -------------------------------------------------------------------------------


def test_no_memory_for_masks_ends_in_dense(monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("paro: no memory for scratch and output")

    monkeypatch.setattr(cuda_masks, "find_masks", full)
    host, _ = host_for(SETTINGS())
    host.run()
    assert host.session.report.paths == {"fallback": 2, "dense": 10} and host.dense_calls == 12
    told = host.reasons()
    assert told["OutOfMemoryError: paro: no memory for scratch and output"] == 2
    assert told["the sparse kernel ran out of memory"] == 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")], ids=str)
def test_queries_that_are_not_finite_fall_back(bad):
    host, _ = host_for(SETTINGS())
    q, k, v = tensors(2, 144, 64)
    q[0, 1, 20, 3] = bad
    mark = torch.zeros(1)
    out, ours = host.call(host.session.begin_forward(1.0), "double.0.0", (q, k, v), lambda: mark)
    assert (
        out is mark
        and not ours
        and host.reasons() == {"the sparse output had NaN or infinite values": 1}
    )


def test_a_profile_that_does_not_fit_leaves_the_run_dense():
    host, _ = host_for(SETTINGS(), built=profile(heads=3))
    host.run()
    assert host.reasons() == {
        "the profile has 3 heads of size 64, the model has 2 heads of size 64": 12
    }


def test_exact_maps_are_not_asked_for():
    def never(built, grid):
        raise AssertionError("masks are found in every call")

    host, _ = host_for(SETTINGS(), find_maps=never)
    host.run()
    assert host.session.report.paths == {"sparse": 12} and not host.reasons()
    assert "exact maps" not in host.session.report.profile_note
