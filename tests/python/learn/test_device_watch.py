"""Sampling where q lies, as on a GPU: the same findings as on the host, and nothing waited for.

The device here is the CPU: cuda_observe does the same in plain torch there.
"""

import functools
import time

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host
from paroattention import Observer, Settings, TokenLayout, _core
from paroattention.kernels import cuda_observe
from paroattention.learn import sampling
from paroattention.learn.device_watch import METER_EVERY, DeviceWatch, block_sums
from paroattention.learn.seen_blocks import PRIOR
from problems import random_plan, tensors
from shifting import GRID, retained_at, run_shifted, shifted

LAYOUT = TokenLayout(GRID, prefix=5, suffix=3)
SCALE = 64**-0.5


def on_device(q):
    return True


run = functools.partial(run_shifted, on_device=on_device)


@pytest.mark.parametrize("batch", [1, 2])
def test_kernels_are_those_of_the_host(batch):
    q, k, _ = tensors(3, LAYOUT.length, 64, batch=batch)
    found = []
    for given in (on_device, None):
        observer = Observer(64, seed=5, on_device=given)
        for group in (0, 1, 0):
            observer.observe("a", q, k, LAYOUT, sm_scale=SCALE, group=group)
        assert observer.layers["a"].seen_groups() == [0, 1]
        assert [head.rows for head in observer.layers["a"].accumulators(0)] == [128] * 3
        found.append(np.stack(observer.kernels("a", 0)))
    assert np.allclose(*found, rtol=1e-4, atol=1e-9)


def test_rows_for_a_capture_are_those_of_the_host():
    q, k, _ = tensors(2, LAYOUT.length, 64, batch=2)
    kept = []
    for given in (on_device, None):
        observer = Observer(32, seed=5, keep_rows=True, on_device=given)
        observer.observe("a", q, k, LAYOUT, sm_scale=SCALE)
        observer.layers["a"].take_rows()
        kept.append(observer.layers["a"].newest)
    assert set(kept[0]) == set(kept[1]) == {(0, 0), (0, 1)}
    for name, (places, rows) in kept[0].items():
        assert np.array_equal(places, kept[1][name][0]) and rows.dtype == np.float16
        assert np.allclose(rows.astype(float), kept[1][name][1].astype(float), atol=2e-4)


def test_block_sums_are_those_of_the_host():
    rows = torch.rand(2, 7, 6 * 8 * 8).half()
    found = block_sums(rows, GRID, ["WHF", "HFW"], 64)
    for head, order in enumerate(("WHF", "HFW")):
        want = sampling.block_sums(rows[head].float(), GRID, order, 64)
        assert torch.allclose(found[head], want, rtol=1e-5)


def test_a_call_waits_for_nothing_that_its_own_step_gave_the_device(monkeypatch):
    """What a device was asked for in a step is read in the next one, when that is under way."""
    step, read = [0], []

    class Noted(cuda_observe.Readback):
        def __init__(self, tensor):
            super().__init__(tensor)
            self.asked = step[0]

        def get(self):
            read.append((self.asked, step[0]))
            return super().get()

    monkeypatch.setattr(cuda_observe, "Readback", Noted)
    host = Host(Settings(observe_steps=2, density=0.2, dense_below=0.0), grid=GRID)
    host.session.observer.on_device = on_device
    for step[0], sigma in enumerate(SIGMAS[:-1]):
        forward = host.session.begin_forward(sigma)
        # Sums for new masks are sent as a step begins, behind all that was asked for before it.
        begun, beside = len(read), host.session.watch.proposals.ordered
        host.call(forward, host.layers[0], shifted(0))
        assert len(read) == begun
        host.call(forward, host.layers[1], shifted(0))
        late = {asked for asked, when in read[begun:] if when == step[0]}
        assert late <= ({step[0] - 1, step[0]} if beside else {step[0] - 1})
    # Steps 2 and 4 were sampled.
    assert {when for _, when in read} == {3, 5}
    host.session.finish()


def test_masks_follow_heads_that_change_what_they_look_at():
    sigmas = [1.0, 0.95, *SIGMAS[1:]]
    kept, _ = run([0] * 7, sigmas=sigmas)
    changed, summary = run([0, 0, 3, 3, 3, 3, 3], sigmas=sigmas)
    assert retained_at(kept, 6) > 0.95
    assert retained_at(changed, 2) < 0.5
    assert retained_at(changed, 6) > retained_at(changed, 2) + 0.1
    assert max(taken for _, taken, _ in summary["renewals"]) == 4


@pytest.mark.parametrize("few", [True, False], ids=["few rows", "many rows"])
def test_rows_of_dense_steps_serve_masks_where_they_are_few(monkeypatch, few):
    """They come to the host then, and the first plan is made of them too."""
    from paroattention.run import observation

    if not few:
        monkeypatch.setattr(observation, "_FEW_ROWS", 0)
    host = Host(Settings(observe_steps=2, density=0.2, dense_below=0.0), grid=GRID)
    host.session.observer.on_device = on_device
    for sigma in SIGMAS[:3]:
        host.evaluate(sigma)
    counts = [seen.counts.sum() for seen in host.session.planner.seen.values()]
    assert counts == [2 * 2 * 64 if few else 0] * 2
    host.run(SIGMAS[3:-1])
    assert host.session.report.paths == {"observe": 4, "sparse": 8} and not host.reasons()


@pytest.mark.parametrize("observed", [1, 2])
def test_plans_of_what_samples_saw_are_made_in_the_background(monkeypatch, observed):
    """The first ones too, also where others were begun ahead of the last samples."""
    made = []
    plan_layer = _core.plan_layer
    monkeypatch.setattr(_core, "plan_layer", lambda *given, **options: made.append(given))
    host = Host(Settings(observe_steps=observed, density=0.2, dense_below=0.0), grid=GRID)
    host.session.observer.on_device = on_device
    for sigma in SIGMAS[: observed + 1]:
        host.evaluate(sigma)
    planner = host.session.planner
    for key, plan in planner.plans().items():
        seen = planner.seen[key.layer]
        assert seen.counts.sum() == observed * 2 * 64
        given = host.session.profile, planner.index(key.layer), 0, GRID
        known = _core.KnownBlocks(sums=seen.sums, counts=seen.counts, prior=PRIOR)
        want = plan_layer(*given, density=0.2, known=known)
        assert (_core.plan_words(plan) == _core.plan_words(want)).all()
        assert (_core.plan_words(plan) != _core.plan_words(plan_layer(*given, density=0.2))).any()
    summary = host.run(SIGMAS[observed + 1 : -1])
    assert summary["renewals"] and sum(summary["renewals"][-1][2:]) == 4
    assert not made and not host.reasons()


def test_new_masks_are_built_a_step_ahead_and_the_same_however_long_that_takes(monkeypatch):
    """Kernels alone: plans come from a builder. Masks must not depend on a machine's speed."""
    from paroattention.plan import planning
    from paroattention.run import block_memory

    monkeypatch.setattr(block_memory, "MOST_BYTES", 0)
    builder, begun, asked, seconds = _core.PlanBuilder, [], [], [0.0]
    step = [0]

    class Slow:
        def __init__(self, *given, **options):
            self.real, self.begun = builder(*given, **options), step[0]
            begun.append(self)

        def get(self, layer):
            asked.append((self.begun, step[0]))
            time.sleep(seconds[0])
            return self.real.get(layer)

        def cancel(self):
            self.real.cancel()

    monkeypatch.setattr(planning._core, "PlanBuilder", Slow)
    found = []
    for seconds[0] in (0.0, 0.02):
        asked.clear()
        host = Host(Settings(observe_steps=2, density=0.2, dense_below=0.0), grid=GRID)
        host.session.observer.on_device = on_device
        for step[0], sigma in enumerate(SIGMAS[:-1]):
            forward = host.session.begin_forward(sigma)
            for layer in host.layers:
                host.call(forward, layer, shifted(0 if step[0] < 2 else 3))
        plans = host.session.planner.plans()
        found.append({key: bytes(_core.plan_words(plan)) for key, plan in plans.items()})
        summary = host.session.finish()
        assert summary["renewals"][0] == [3, 4, 4]
        lost = [text.split(":")[0] for text in host.reasons()]
        assert lost == [
            "the first masks are made without rows of watched steps",
            "masks do not learn where in the picture a query lies",
        ]
        # Made in step 3, before the jury in step 4.
        assert (3, 4) in asked and not any(began == now for began, now in asked if began == 3)
    assert found[0] == found[1]


def test_heads_are_made_denser_by_readings_of_the_masks_they_have(monkeypatch):
    """Not by those of masks that were replaced while their step was under way."""
    from paroattention.learn import device_watch
    from paroattention.plan import denser

    monkeypatch.setattr(device_watch, "METER_EVERY", 1)
    settings = Settings(observe_steps=2, refresh_every=1, density=0.2, dense_below=0.0)
    host = Host(settings, grid=GRID, sigmas=[1.0, 0.95, *SIGMAS[1:]])
    session, step, ran, judged = host.session, [0], {}, []
    session.observer.on_device = on_device
    run_sparse, add = session._run_ours, denser.Denser.add

    def noted_run(call, plan, device):
        ran.setdefault((step[0], call.layer), plan)
        return run_sparse(call, plan, device)

    def noted_add(self, key, sums, queries):
        judged.append((step[0] - 1, key.layer))
        assert session.planner.get(key) is ran[judged[-1]]
        add(self, key, sums, queries)

    monkeypatch.setattr(session, "_run_ours", noted_run)
    monkeypatch.setattr(denser.Denser, "add", noted_add)
    for step[0], sigma in enumerate(host.session.steps.sigmas[:-1]):
        forward = session.begin_forward(sigma)
        for layer in host.layers:
            host.call(forward, layer, shifted(0 if step[0] < 2 else 3))
    assert session.watch.proposals.renewals and not host.reasons()
    read = {(line["step"], line["layer"]) for line in session.watch.meter.history}
    # Every layer of every sampled step was read; those of the step that changed masks not judged.
    assert read > set(judged) and len(judged) > 4


def test_nothing_is_renewed_where_nothing_is_gained():
    host, summary = run([0] * 6)
    assert summary["renewals"] and all(taken == 0 for _, taken, _ in summary["renewals"])
    assert not host.reasons() and summary["measured_error"] < 0.05


def test_density_auto_measures_its_curves_there_too():
    settings = Settings(density="auto", target_error=0.2, observe_steps=2, dense_below=0.0)
    host, summary = run([0] * 6, settings)
    # Of the second half, from step 3 on, the first sampled one: new masks are before a jury then.
    assert [step for step, _, _ in summary["budgets"]] == [2, 4] and not host.reasons()


def test_the_meter_takes_layers_in_turn():
    watch = DeviceWatch(Observer(32), True)
    layers = "abcdefg"
    assert all([watch._metered(layer) for layer in layers])
    later = np.array([[watch._metered(layer) for layer in layers] for _ in range(2 * METER_EVERY)])
    assert (later.sum(0) == 2).all() and later.sum(1).max() <= 2


def test_calls_between_two_readings_of_the_meter_still_teach(monkeypatch):
    from paroattention.learn import device_watch

    sigmas = [1.0 - 0.01 * step for step in range(40)] + [0.0]
    settings = Settings(observe_steps=1, density=0.2, dense_below=0.0)
    steps, taught, read = [], [], []
    for every in (METER_EVERY, 1):
        monkeypatch.setattr(device_watch, "METER_EVERY", every)
        host = Host(settings, grid=(3, 8, 8), sigmas=sigmas)
        host.session.observer.on_device = on_device
        for sigma in sigmas[:-1]:
            host.evaluate(sigma)
        host.session.watch.settle()
        taught.append([seen.counts.sum() for seen in host.session.planner.seen.values()])
        read.append(len(host.session.watch.meter.history))
        steps.append([step for step, _, _ in host.session.finish()["renewals"]])
        assert not host.reasons()
    assert steps[0] == steps[1] and steps[0]
    assert taught[0] == taught[1] and min(taught[0]) > 0
    # Those of a proposal's judges are left, and every fifth of the others.
    assert read[0] < 0.7 * read[1]


def test_heads_take_turns_where_not_all_rows_fit(monkeypatch):
    from paroattention.learn import device_watch

    monkeypatch.setattr(device_watch, "_ROW_BYTES", 2 * 2 * 32 * 100)
    watch = DeviceWatch(Observer(32), True)
    assert [watch._keep(5, 32 * 100) for _ in range(3)] == [[0, 1], [2, 3], [0, 4]]
    assert watch._keep(5, 32 * 10**6) == [1]


def test_rows_that_are_not_finite_are_no_reading():
    tally = sampling.Tally(2)
    tally.add_means(np.array([0.5, np.nan]), np.array([0.04, np.nan]), 32)
    sums = tally.read()
    assert list(sampling.retained(sums)) == [0.5, 1]
    assert list(sampling.relative_error(sums)) == pytest.approx([0.2, 0])


def test_readings_are_those_of_the_meter():
    qkv = tensors(2, LAYOUT.length, 64)
    plan = random_plan(LAYOUT, 2, 0.4)
    watch = DeviceWatch(Observer(64, seed=3), True)

    class Key:
        layer, layout = "a", LAYOUT

    watch.call(Key, [plan, plan], *qkv, SCALE, 0, 64, None)
    (reading,) = watch.take()
    assert watch.take() == [] and reading.queries == 64
    values = reading.measured.get()
    assert values.shape == (2, 2, 2) and torch.equal(values[0], values[1])
    assert np.allclose(reading.gains()[:, 1], 0) and isinstance(plan, _core.Plan)
