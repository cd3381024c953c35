"""The plan that is built beside the last dense step."""

import gc
import threading
import weakref

import pytest
from fake_host import SIGMAS, Host
from paroattention import Observer, Settings, TokenLayout
from paroattention.learn.observer import Snapshot
from paroattention.run import learning, observation
from paroattention.run.beside import Ahead, Beside
from problems import GRID, tensors


def gpu_host(settings=None, **options):
    """A host whose tensors are watched as a GPU's are."""
    host = Host(settings or Settings(observe_steps=3), **options)
    host.session.observer.on_device = lambda q: True
    return host


def test_the_plan_is_made_beside_the_last_dense_step(monkeypatch):
    threads, build = [], observation.build_profile

    def noted(observer, *args, **kwargs):
        threads.append((threading.current_thread().name, type(observer).__name__))
        return build(observer, *args, **kwargs)

    monkeypatch.setattr(observation, "build_profile", noted)
    host = gpu_host(Settings(observe_steps=3, refresh=False))
    host.run()
    assert threads == [("paro-plan", "Snapshot")]
    assert list(host.paths().values()) == ["observe"] * 3 + ["sparse"] * 3
    assert len(host.saved) == 1 and not host.reasons()


def test_plans_are_those_of_the_samples_before_that_step(monkeypatch):
    """Of three observed steps the first two, as if there had been no other."""
    # Rows that come to the host are known at once.
    monkeypatch.setattr(observation, "_FEW_ROWS", 0)
    ahead, two = gpu_host(), gpu_host(Settings(observe_steps=2))
    two.session.learning.start_ahead = lambda: None
    codes = []
    for host, steps in ((ahead, 4), (two, 3)):
        for sigma in SIGMAS[:steps]:
            host.evaluate(sigma)
        host.session.learning.saver.settle()
        heads = [head for layer in host.saved[0].layers for head in layer.heads]
        codes.append([(head.order, head.groups[0].code) for head in heads])
    assert len(codes[0]) == 4 and codes[0] == codes[1]


def test_one_observed_step_has_nothing_to_start_from():
    host = gpu_host(Settings(observe_steps=1))
    host.run()
    assert list(host.paths().values()) == ["observe"] + ["sparse"] * 5 and not host.reasons()


def test_on_a_cpu_nothing_runs_beside_a_step(monkeypatch):
    monkeypatch.setattr(learning, "Ahead", None)
    host = Host(Settings(observe_steps=3))
    host.run()
    assert host.session.report.paths == {"observe": 6, "sparse": 6} and not host.reasons()


def test_a_plan_that_cannot_be_made_leaves_the_run_dense(monkeypatch):
    def broken(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(observation, "build_profile", broken)
    host = gpu_host()
    host.run()
    assert host.session.report.paths == {"observe": 6, "dense": 6}
    assert (
        next(iter(host.reasons())) == "no masks could be made from the watched steps: MemoryError"
    )


def test_an_interrupt_gives_the_plan_up(monkeypatch):
    """The run ends at once; what comes later is not used, and nothing is kept."""
    go, build = threading.Event(), observation.build_profile

    def slow(*args, **kwargs):
        assert go.wait(10)
        return build(*args, **kwargs)

    monkeypatch.setattr(observation, "build_profile", slow)
    host = gpu_host()
    for sigma in SIGMAS[:3]:
        host.evaluate(sigma)
    ahead = host.session.learning._ahead
    assert ahead is not None
    host.session.finish(ok=False)
    assert not host.saved
    go.set()
    ahead._thread.join(10)
    assert ahead._result is None


def test_work_waits_for_so_many_calls_or_for_as_many_as_steps_have():
    beside, done = Beside(3), []

    def step(number, calls):
        beside.run()
        beside.begin(lambda: done.append(number))
        for call in range(calls):
            if beside.called():
                beside.run()
            due[(number, call)] = list(done)

    due = {}
    for number, calls in enumerate([5, 5, 2, 2, 0, 2, 1]):
        step(number, calls)
    # After the third call; of a step with fewer than the one before, as the next one begins.
    assert due[(0, 1)] == [] and due[(0, 2)] == due[(0, 4)] == [0]
    assert due[(1, 1)] == [0] and due[(1, 2)] == [0, 1]
    assert due[(2, 1)] == [0, 1] and due[(3, 0)] == [0, 1, 2]
    # As short as the last one: as it ends. A step that a cache skipped does not tell how long the
    # next one is. Each is done once, in its turn.
    assert due[(3, 1)] == [0, 1, 2, 3] and due[(5, 0)] == [0, 1, 2, 3, 4]
    assert due[(5, 1)] == due[(6, 0)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("late", [False, True], ids=["there already", "still under way"])
def test_cancelling_gives_up_what_was_made(late):
    go, given_up = threading.Event(), []

    def work():
        assert go.wait(10)
        return "made"

    ahead = Ahead(work, given_up.append)
    if not late:
        go.set()
        ahead._thread.join(10)
    ahead.cancel()
    go.set()
    ahead._thread.join(10)
    assert given_up == ["made"]


def test_a_result_or_an_error_comes_through():
    def broken():
        raise ValueError("no")

    assert Ahead(lambda: 3, print).result() == 3
    with pytest.raises(ValueError, match="no"):
        Ahead(broken, print).result()


def test_a_snapshot_stays_as_it_was():
    layout = TokenLayout(GRID)
    observer = Observer(16)
    q, k, _ = tensors(2, layout.length, 64)
    observer.observe("a", q, k, layout, sm_scale=0.1)
    snapshot = Snapshot(observer)
    before = [kernel.copy() for kernel in snapshot.kernels("a")]
    observer.observe("a", q, k, layout, sm_scale=0.1)
    observer.observe("b", q, k, layout, sm_scale=0.1)
    assert list(snapshot.layers) == ["a"] and snapshot.layers["a"].seen_groups() == [0]
    assert all((a == b).all() for a, b in zip(before, snapshot.kernels("a"), strict=True))
    assert any((a != b).any() for a, b in zip(before, observer.kernels("a"), strict=True))


def test_a_session_and_its_thread_are_let_go():
    host = gpu_host()
    host.run()
    ref = weakref.ref(host.session)
    del host
    gc.collect()
    assert ref() is None


def test_a_profile_is_saved_beside_the_run(monkeypatch):
    go, begun = threading.Event(), threading.Event()

    def slow(profile, tensors):
        begun.set()
        assert go.wait(10)
        saved.append((threading.current_thread().name, profile, tensors))

    saved = []
    host = gpu_host(Settings(observe_steps=3, refresh=False), save_profile=slow)
    for sigma in SIGMAS[:5]:
        host.evaluate(sigma)
    assert begun.wait(10) and not saved and host.session.report.paths["sparse"]
    go.set()
    host.session.finish()
    (name, profile, tensors) = saved[0]
    assert name == "paro-plan" and profile is host.session.profile and len(saved) == 1
    assert tensors and not host.reasons()


@pytest.mark.parametrize("make", [gpu_host, lambda **options: Host(Settings(), **options)])
def test_a_full_disk_costs_the_profile_and_not_the_run(make):
    def full(profile, tensors):
        raise OSError("no space left")

    host = make(save_profile=full)
    host.run()
    assert host.session.report.paths["sparse"]
    assert host.reasons() == {"the profile could not be saved: no space left": 1}
