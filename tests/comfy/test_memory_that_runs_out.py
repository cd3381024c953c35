"""Memory that runs out at each place of ours that takes some, in the real engine.

tests/python/run/test_out_of_memory.py fails every single allocation of a session. Here the plugin
around it is there too: reading the model, the override's own copies, profiles that are found,
merged and saved. A run is made for each line of our code that allocates, and the first or the last
allocation of that line fails.
"""

import sys

import harness
import pytest
import torch
from allocations import Allocations

STEPS = 4
RUNS = {
    "a first run": lambda model: harness.paro(model, observe_steps=1),
    "8 bits while dense": lambda model: harness.paro(
        model, observe_steps=2, dense_steps="int8", watch="always"
    ),
    "a target error": lambda model: harness.paro(model, profile="none", target_error=0.1),
    "an exact calibration": lambda model: harness.calibrate(model, exact=True),
}
OURS = ("/comfy_nodes/", "/paroattention/")


def line_of_ours() -> str:
    """The innermost line of the plugin or the library that is under way."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if any(part in file for part in OURS):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@pytest.fixture
def start(model, monkeypatch):
    """start(case, at, for_good): the latent, and the allocations of ours that were counted."""
    from paroattention.run import dense_calls

    monkeypatch.setattr(dense_calls, "fast_at_density_1", lambda q: True)

    def run(case, at=0, seen=None, for_good=False):
        wrapped = RUNS[case](model)
        with monkeypatch.context() as patch:
            counted = Allocations(patch, at)
            counted.seen, counted.for_good = seen or counted.seen, for_good
            _count_ours(patch, counted)
            return harness.sample(wrapped, steps=STEPS), counted

    return run


def _count_ours(patch, counted) -> None:
    """Allocations count where ComfyUI calls ours, up to where ours calls ComfyUI."""

    def inside(owner, name):
        function = getattr(owner, name)

        def called(*args, **kwargs):
            with counted:
                return function(*args, **kwargs)

        patch.setattr(owner, name, called)

    run, override = harness.part("run").Run, harness.part("override")
    for name in ("__init__", "begin_call", "end_call", "begin_forward", "came_to", "finish"):
        inside(run, name)
    inside(override, "_taken")
    inside(override, "_by_session")
    host = harness.part("host_attention").HostAttention
    call = host.__call__

    def by_host(self, *args):
        before, counted.of_host = counted.of_host, True
        try:
            return call(self, *args)
        finally:
            counted.of_host = before

    patch.setattr(host, "__call__", by_host)


def check(folders, out) -> None:
    """The latent is whole, and so is what lies on the disk."""
    assert torch.isfinite(out).all()
    for name in folders.names():
        assert name.endswith((".json", ".capture.safetensors"))
        if name.endswith(".json"):
            folders.load(name.removesuffix(".json"))


def clear(folders) -> None:
    for path in folders.profiles.glob("*"):
        path.unlink()


@pytest.mark.parametrize("case", RUNS)
def test_each_line_that_allocates_may_fail(folders, start, sent, caplog, case):
    start(case)  # what is read once in a process
    clear(folders)
    places = {}
    plain, counted = start(case, seen=lambda n: places.setdefault(line_of_ours(), []).append(n))
    clear(folders)
    assert len(places) > 20 and "" not in places
    for place, numbers in places.items():
        for at in {numbers[0], numbers[-1]}:
            caplog.clear()
            sent.clear()
            out, failed = start(case, at)
            assert failed.count >= at and out.shape == plain.shape, place
            check(folders, out)
            # Told on the node, in a few words, and not in every line of the log.
            last = [data for event, data in sent if event == "paro.status"][-1]
            told = [one["text"] for one in last["reasons"] if "Memory" in one["text"]]
            assert last["done"] and 1 <= len(told) <= 2, (place, last["reasons"])
            assert sum("Memory" in one for one in caplog.messages) <= 4, place
            clear(folders)
    assert torch.equal(start(case)[0], plain)
    print(f"{case}: {len(places)} lines, {counted.count} allocations")


@pytest.mark.parametrize("case", RUNS)
def test_memory_that_is_gone_for_good(model, folders, start, case):
    """What the host computes is then the run."""
    want = harness.sample(model, steps=STEPS)
    out, _ = start(case, 1, for_good=True)
    assert torch.equal(out, want) and folders.names() == []
