"""The session's states: observing, sparse, dense by wish, calibrating."""

import threading

import numpy as np
import pytest
import torch
from fake_host import SIGMAS, Host, finder
from paroattention import Error, Profile, Session, Settings, TokenLayout, _core, reference
from problems import GRID, profile, tensors
from tolerances import assert_close

TWO = ((1.0, 0.5), (0.5, 0.0))


def sequence(host):
    return list(host.paths().values())


@pytest.mark.parametrize("observe", [1, 2, 4])
def test_observes_the_first_steps_then_goes_sparse(observe):
    host = Host(Settings(observe_steps=observe))
    summary = host.run()
    assert sequence(host) == ["observe"] * observe + ["sparse"] * (6 - observe)
    assert host.dense_calls == 2 * observe
    assert summary["paths"] == {"observe": 2 * observe, "sparse": 2 * (6 - observe)}
    assert summary["profile"] == f"observed in this run ({observe} step{'s'[: observe > 1]})"
    assert not host.reasons()


def test_observed_profile_is_saved_once_and_as_soon_as_it_is_complete():
    host = Host(Settings(observe_steps=2, refresh=False))
    for sigma in SIGMAS[:2]:
        host.evaluate(sigma)
        assert not host.saved
    host.evaluate(SIGMAS[2])
    assert len(host.saved) == 1
    host.run(SIGMAS[3:-1])
    assert len(host.saved) == 1
    (saved,) = host.saved
    assert saved.layer_ids() == host.layers and saved.calibration.grids == [GRID]
    assert saved.calibration.steps == 6 and saved.timestep_groups == [(1.0, 0.0)]
    Profile.parse(saved.dump())


def test_a_run_shorter_than_its_observation_saves_what_it_saw():
    host = Host(Settings(observe_steps=4), sigmas=[1.0, 0.5, 0.0])
    summary = host.run([1.0, 0.5])
    assert sequence(host) == ["observe", "observe"] and len(host.saved) == 1
    assert summary["profile"] == "observed in this run (2 steps)"


def test_a_profile_that_was_found_is_used_from_the_first_step():
    find, asked = finder(profile(), "mine, exact grid")
    host = Host(find_profile=find)
    summary = host.run()
    assert sequence(host) == ["sparse"] * 6 and host.dense_calls == 0
    assert asked == [GRID] and not host.saved
    assert summary["profile"] == "mine, exact grid"
    assert summary["density"] < 0.5


def test_nothing_found_observes():
    find, asked = finder(None)
    host = Host(find_profile=find)
    host.run()
    assert sequence(host) == ["observe"] * 4 + ["sparse"] * 2 and asked == [GRID]


def test_without_profile_and_observation_the_run_is_dense_and_says_why():
    host = Host(Settings(observe_steps=0))
    summary = host.run()
    assert sequence(host) == ["dense"] * 6 and host.dense_calls == 12
    assert host.reasons() == {"no saved profile fits, and observe_steps 0 watches no step": 12}
    assert summary["reasons"] == dict(host.reasons()) and summary["density"] == 1
    assert not host.saved


@pytest.mark.parametrize(
    ("start", "end", "want"),
    [
        (0.0, 1.0, "ssssss"),
        (0.5, 1.0, "dddsss"),
        (0.0, 0.5, "sssddd"),
        (1 / 3, 2 / 3, "ddssdd"),
        (1.0, 1.0, "dddddd"),
    ],
    ids=str,
)
def test_steps_outside_the_percents_stay_dense(start, end, want):
    find, _ = finder(profile())
    host = Host(Settings(start_percent=start, end_percent=end), find_profile=find)
    host.run()
    assert "".join(path[0] for path in sequence(host)) == want
    # The user asked for it: no warning.
    assert not host.reasons()


def test_observation_does_not_wait_for_start_percent():
    host = Host(Settings(observe_steps=2, start_percent=0.5))
    host.run()
    assert sequence(host) == ["observe", "observe", "dense", "sparse", "sparse", "sparse"]


# -- samplers --------------------------------------------------------------------------------------


def test_repeated_evaluations_belong_to_their_step():
    """heun: the end of a step is evaluated too, which is where the next one starts."""
    host = Host(Settings(observe_steps=2))
    host.run([1.0, 0.9, 0.9, 0.7, 0.7, 0.5, 0.5, 0.3, 0.3, 0.1, 0.1])
    assert sequence(host) == ["observe"] * 2 + ["sparse"] * 4
    assert host.session.report.paths == {"observe": 6, "sparse": 16}
    observed = host.session.observer.layers["double.0.0"].accumulators(0)[0].rows
    # Three evaluations watched, and two of the first sparse step sampled.
    assert observed == 3 * 64 + 2 * 32


def test_intermediate_sigmas_belong_to_the_interval_that_holds_them():
    host = Host(Settings(observe_steps=2))
    host.run([1.0, 0.95, 0.9, 0.8, 0.7, 0.6])
    assert host.paths() == {0: "observe", 1: "observe", 2: "sparse"}
    assert host.session.report.paths == {"observe": 8, "sparse": 4}


def test_steps_may_come_back():
    """Restart samplers raise sigma again: a plan that is there stays in use."""
    host = Host(Settings(observe_steps=1))
    host.run([1.0, 0.9, 0.7, 1.0, 0.9, 0.1])
    assert host.session.report.paths == {"observe": 2, "sparse": 10}


def test_a_late_first_evaluation_is_watched_like_any_other():
    host = Host(Settings(observe_steps=2))
    host.run([0.1, 1.0, 0.9, 0.7])
    assert host.session.report.paths == {"observe": 4, "sparse": 4} and not host.reasons()


def test_cond_and_uncond_in_calls_of_their_own_feed_one_kernel():
    host = Host(Settings(observe_steps=1))
    host.run([1.0, 1.0, 0.9, 0.9])
    # Both watched with 64 queries, and sampled with 32 while sparse.
    assert host.session.observer.layers["double.0.0"].accumulators(0)[0].rows == 2 * (64 + 32)
    assert host.session.report.paths == {"observe": 4, "sparse": 4}


# -- what is computed ------------------------------------------------------------------------------


def test_dense_output_is_handed_back_as_it_is():
    host = Host()
    mark = torch.zeros(3)
    qkv = tensors(2, host.layout.length, 64)
    forward = host.session.begin_forward(1.0)
    out, ours = host.call(forward, "double.0.0", qkv, dense=lambda: mark)
    assert out is mark and not ours


@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_sparse_output_is_that_of_the_plan(precision, tail):
    built = profile()
    find, _ = finder(built)
    host = Host(Settings(precision=precision, tail=tail, density=0.4), find_profile=find)
    qkv = tensors(2, host.layout.length, 64)
    out, ours = host.call(host.session.begin_forward(1.0), "double.1.0", qkv)
    plan = _core.plan_layer(built, 1, 0, GRID, density=0.4)
    assert ours
    assert_close(out, reference.sparse(*qkv, plan, tail=tail), torch.float32, precision)


def test_scale_is_handed_on():
    find, _ = finder(profile())
    session = Host(Settings(precision="bf16", density=1.0), find_profile=find).session
    qkv = tensors(2, 144, 64)
    forward = session.begin_forward(1.0)
    out, _ = session.attention(
        forward, "double.0.0", *qkv, TokenLayout(GRID), lambda: None, sm_scale=0.3
    )
    assert_close(out, reference.dense(*qkv, 0.3), torch.float32, "bf16")


def test_a_heads_own_density_comes_before_the_setting():
    built = profile()
    (first, second) = built.layers
    head = first.heads[0]
    head.density, head.locked = 1.0, True
    built.layers = [_core.ProfileLayer(first.id, [head, first.heads[1]]), second]
    find, _ = finder(built)
    host = Host(Settings(density=0.3), find_profile=find)
    host.run()
    by_layer = {line["layer"]: line["density"] for line in host.lines}
    # Of 9 blocks a head: all of one, and 3 of each other, one a row. So much was not asked for.
    assert by_layer == {"double.0.0": pytest.approx(12 / 18), "double.1.0": pytest.approx(6 / 18)}


def test_plans_are_made_once_per_layer_and_timestep_group(monkeypatch):
    made = []
    plan_layer = _core.plan_layer

    def counted(profile, layer, group, *args, **kwargs):
        made.append((layer, group))
        return plan_layer(profile, layer, group, *args, **kwargs)

    monkeypatch.setattr(_core, "plan_layer", counted)
    find, _ = finder(profile(groups=TWO))
    host = Host(Settings(refresh=False), find_profile=find)
    # 0.5 is the lower group's first sigma.
    for sigma, groups in [(1.0, {0}), (0.9, {0}), (0.7, {0}), (0.5, {0, 1}), (0.1, {0, 1})]:
        host.evaluate(sigma)
        assert {group for _, group in made} == groups
    assert sorted(made) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "sigmas",
    [[1.0, 0.8, 0.6, 0.55, 0.2, 0.05, 0.01, 0.0], [0.9, 0.5, 0.0], [0.4, 0.1, 0.0]],
    ids=str,
)
def test_timestep_groups_hold_by_sigma_whatever_the_schedule(monkeypatch, sigmas):
    """A profile of six steps, used by a run of others: its plans are those of the sigma's group."""
    groups = []
    plan_layer = _core.plan_layer

    def noted(profile, layer, group, *args, **kwargs):
        groups.append(group)
        return plan_layer(profile, layer, group, *args, **kwargs)

    monkeypatch.setattr(_core, "plan_layer", noted)
    find, _ = finder(profile(groups=TWO))
    host = Host(Settings(refresh=False), sigmas=sigmas, find_profile=find)
    for sigma in sigmas[:-1]:
        groups.clear()
        host.session.planner.forget()
        host.evaluate(sigma)
        assert set(groups) == {int(sigma <= 0.5)}


def test_another_text_length_gets_a_plan_of_its_own():
    find, _ = finder(profile())
    host = Host(Settings(precision="bf16", density=1.0), find_profile=find)
    host.evaluate(1.0)
    host.layout = TokenLayout(GRID, prefix=9, suffix=2)
    host.evaluate(0.9)
    qkv = tensors(2, host.layout.length, 64)
    out, ours = host.call(host.session.begin_forward(0.7), "double.0.0", qkv)
    assert ours
    assert_close(out, reference.dense(*qkv), torch.float32, "bf16")


# -- calibrating -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "watched"), [(1, 6), (2, 3), (4, 2), (1000, 1)])
def test_calibration_watches_every_nth_step_and_is_never_sparse(every, watched):
    host = Host(Settings(calibrate=True, every_n_steps=every))
    summary = host.run()
    want = ["dense" if step % every else "observe" for step in range(6)]
    assert sequence(host) == want and want.count("observe") == watched
    assert host.dense_calls == 12 and len(host.saved) == 1
    assert summary["density"] == 1 and not host.reasons()


def test_calibration_knows_both_halves_of_the_steps():
    host = Host(Settings(calibrate=True, queries=8))
    host.run()
    (saved,) = host.saved
    assert saved.timestep_groups == [(1.0, 0.5), (0.5, 0.0)]
    groups = host.session.observer.layers["double.0.0"].groups
    assert {group: heads[0].rows for group, heads in groups.items()} == {0: 24, 1: 24}


def test_calibration_looks_nothing_up():
    find, asked = finder(profile())
    host = Host(Settings(calibrate=True), find_profile=find)
    host.run()
    assert not asked and len(host.saved) == 1


def test_capture_rows_go_with_the_profile(tmp_path):
    kept = []
    host = Host(
        Settings(refresh=False),
        save_profile=lambda profile, tensors: kept.append((profile, tensors)),
    )
    host.run()
    ((built, rows),) = kept
    assert set(rows) == {
        f"{kind}/{layer}/{head}/0"
        for kind in ("rows", "queries") for layer in host.layers for head in (0, 1)
    }  # fmt: skip
    _core.save_capture(tmp_path / "c.safetensors", built, rows)
    again, tensors_again = _core.load_capture(tmp_path / "c.safetensors")
    assert again.dump() == built.dump()
    assert all(np.array_equal(tensors_again[key], rows[key]) for key in rows)


def test_captures_hold_32_heads_at_most_from_all_layers():
    kept = []
    host = Host(Settings(observe_steps=1), heads=12, save_profile=lambda p, t: kept.append(t))
    host.layers = [f"double.{index}.0" for index in range(8)]
    host.run([1.0, 0.9])
    (rows,) = kept
    layers = {key.split("/")[1] for key in rows}
    assert len(rows) <= 64 and layers == set(host.layers)


# -- apart from each other -------------------------------------------------------------------------


def test_two_sessions_at_once_stay_apart():
    find, _ = finder(profile())
    hosts = [Host(Settings(observe_steps=2)), Host(find_profile=find)]
    threads = [threading.Thread(target=host.run) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sequence(hosts[0]) == ["observe"] * 2 + ["sparse"] * 4 and len(hosts[0].saved) == 2
    assert sequence(hosts[1]) == ["sparse"] * 6 and not hosts[1].saved
    assert not hosts[0].reasons() and not hosts[1].reasons()


def test_a_run_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    Host(Settings(observe_steps=2)).run()
    assert torch.equal(before, torch.get_rng_state())


def test_bad_settings_are_refused_at_the_start():
    with pytest.raises(Error, match="density must be from"):
        Session(Settings(density=2.0), SIGMAS)
