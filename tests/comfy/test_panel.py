"""What the page is sent while a run goes on: complete, true, and JSON."""

from types import SimpleNamespace

import harness
import pytest

pytestmark = pytest.mark.usefixtures("folders")


def states(sent):
    return [data for event, data in sent if event == "paro.status"]


def test_a_run_from_observation_to_the_end(model, sent, folders):
    harness.sample(harness.paro(model, observe_steps=2, save_as="seen"))
    seen = states(sent)
    assert [state["step"] for state in seen[:6]] == list(range(6))
    assert [state["state"].split(": ")[-1] for state in seen[:6]] == [
        "starting", "observing", "sparse", "sparse", "sparse", "sparse",
    ]  # fmt: skip
    assert all(state["node"] == "7" and state["steps"] == 6 for state in seen)
    last = seen[-1]
    assert last["done"] and last["state"] == "finished" and last["saved_as"] == "seen"
    end = folders.last()
    assert (last["density"], last["retained"]) == (end["density"], end["measured_retained"])
    assert last["error"] == end["measured_error"] and 0 < last["error"] < 1
    assert last["heads"] == 4 and last["grid"] == [3, 6, 8] and last["reasons"] == []
    steps = last["dense_step_seconds"], last["sparse_step_seconds"]
    assert last["saved_seconds"] == pytest.approx(4 * (steps[0] - steps[1]))
    assert ("paro.profiles", {"name": "seen"}) in sent


def test_figures_come_while_the_run_goes_on(model, sent):
    harness.sample(harness.paro(model, observe_steps=1))
    seen = states(sent)
    # The plans are made in step 1; from its second evaluation on they are known.
    assert seen[1]["density"] is None
    assert seen[2]["density"] == pytest.approx(seen[-1]["density"])
    assert seen[2]["sparse"] and seen[2]["profile"] == "observed in this run (1 step)"


def test_reasons_are_marked_as_dense_or_not(model, sent):
    harness.sample(harness.paro(model, observe_steps=0))
    (reason,) = states(sent)[-1]["reasons"]
    assert reason == {
        "text": "no saved profile fits, and observe_steps 0 watches no step",
        "count": 12,
        "dense": True,
    }
    assert states(sent)[-1]["density"] is None


def test_an_interrupted_run_ends_as_stopped(model, sent):
    import comfy.model_management

    def override(func, *args, **kwargs):
        raise comfy.model_management.InterruptProcessingException()

    broken = model.clone()
    broken.model_options["transformer_options"]["optimized_attention_override"] = override
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        harness.sample(harness.paro(broken))
    assert states(sent)[-1]["state"] == "stopped" and states(sent)[-1]["done"]


def times_of(monkeypatch, steps, clock, dense_calls=None):
    """StepTimes of steps that are "sparse", "ours" or "model", beginning at the clock's seconds."""
    panel = harness.part("panel")
    ticks = iter(clock)
    monkeypatch.setattr(panel, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    times, counts = panel.StepTimes(dense_calls), {"sparse": 0, "ours": 0, "model": 0}
    for step, kind in enumerate(steps):
        times.begin(step, **counts)
        counts[kind] += 4
    times.begin(None, **counts)
    return times


def test_step_times(monkeypatch):
    clock = [0.0, 5.0, 6.0, 7.0, 7.5, 8.0]
    times = times_of(monkeypatch, ["model"] * 3 + ["sparse"] * 2, clock)
    assert times.dense == [5.0, 1.0, 1.0] and times.sparse == [0.5, 0.5] and times.ours == []
    assert times.dense_seconds == 1.0 and times.saved == 1.0


def test_steps_that_are_dense_by_ours_are_compared_with_one_call_by_the_models_own(monkeypatch):
    clock = [0.0, 5.0, 6.0, 6.5, 7.0]
    steps, calls = ["ours"] * 2 + ["sparse"] * 2, SimpleNamespace(seconds=(0.5, 0.25))
    times = times_of(monkeypatch, steps, clock, calls)
    # A step of 1 s has four calls, each of which takes a quarter of a second more.
    assert times.ours == [5.0, 1.0] and times.dense_seconds == 2.0
    assert times.saved == 2.0 * 3 - (0.5 + 0.5) - 1.0
    calls.seconds = None
    assert times.dense_seconds is None and times.saved is None
