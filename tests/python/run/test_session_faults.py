"""Nothing that goes wrong on our side ends a run; all of it is counted and told."""

import gc
import weakref

import pytest
import torch
from fake_host import SIGMAS, Host, sparse_host
from paroattention import Settings, TokenLayout, session
from paroattention.run import observation
from paroattention.runlog import RunLog
from problems import GRID, profile, tensors

# -- profiles that do not fit ----------------------------------------------------------------------

MISFITS = {
    "other heads": (
        profile(heads=3),
        "the profile has 3 heads of size 64, the model has 2 heads of size 64",
    ),
    "other head_dim": (
        profile(head_dim=128),
        "the profile has 2 heads of size 128, the model has 2 heads of size 64",
    ),
    "far grid": (
        profile(grid=(9, 6, 8)),
        "the profile is for other sizes: 9x6x8 tokens (this run: 3x6x8)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_profile_that_does_not_fit_leaves_the_run_dense(case):
    built, reason = MISFITS[case]
    host = sparse_host(built)
    host.run()
    assert set(host.paths().values()) == {"dense"} and host.dense_calls == 12
    assert host.reasons() == {reason: 12}
    assert {line["reason"] for line in host.lines} == {reason}


def test_a_near_grid_is_used():
    host = sparse_host(profile(grid=(4, 6, 8)))
    assert host.evaluate(1.0) == [True, True] and not host.reasons()


# -- faults of a call ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_output_that_is_not_finite_falls_back(precision, bad):
    host = sparse_host(settings=Settings(precision=precision))
    q, k, v = tensors(2, 144, 64)
    v = v.clone()
    v[0, 1, 20, 3] = bad
    mark = torch.zeros(1)
    out, ours = host.call(host.session.begin_forward(1.0), "double.0.0", (q, k, v), lambda: mark)
    assert out is mark and not ours
    assert host.reasons() == {"the sparse output had NaN or infinite values": 1}
    assert host.session.report.paths == {"fallback": 1}
    host.evaluate(0.9)
    assert host.session.report.paths == {"fallback": 1, "sparse": 2}


def test_large_finite_values_are_no_fault():
    """Every output is finite, though their sum in half precision would not be."""
    host = sparse_host()
    host.evaluate(1.0, change=lambda q, k, v: (q.half(), k.half(), torch.full_like(v, 6e4).half()))
    assert host.session.report.paths == {"sparse": 2}


def test_an_exception_of_ours_falls_back_with_its_first_line(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no memory\nand a long trace")

    monkeypatch.setattr(session, "attention", broken)
    host = sparse_host()
    assert host.evaluate(1.0) == [False, False]
    assert host.reasons() == {"RuntimeError: no memory": 2}
    assert host.session.report.paths == {"fallback": 2}


def test_a_lookup_that_fails_is_told_and_the_run_observes():
    def find(grid):
        raise OSError("disk gone")

    host = Host(Settings(observe_steps=2), find_profile=find)
    host.run()
    assert host.reasons() == {"OSError: disk gone": 1}
    assert host.session.report.paths == {"fallback": 1, "observe": 3, "sparse": 8}


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", ["observing", "dense"])
def test_what_the_hosts_function_raises_passes_through(state, kind):
    def dense():
        raise kind("stop")

    host = Host(Settings(observe_steps=4 if state == "observing" else 0))
    forward = host.session.begin_forward(1.0)
    with pytest.raises(kind, match="stop"):
        host.call(forward, "double.0.0", tensors(2, 144, 64), dense)
    assert not host.reasons()


def test_inputs_that_the_kernels_do_not_take_stay_dense():
    host = sparse_host()
    host.evaluate(1.0, change=lambda *qkv: [x.double() for x in qkv])
    assert host.reasons() == {"dtype torch.float64 is not float32, float16 or bfloat16": 2}
    assert host.session.report.paths == {"dense": 2}


def test_rows_that_are_not_finite_are_not_observed_and_said():
    host = Host(Settings(observe_steps=2))
    host.evaluate(1.0)
    forward = host.session.begin_forward(0.9)
    q, k, v = tensors(2, 144, 64)
    host.call(forward, "double.0.0", (q * float("nan"), k, v))
    host.run(SIGMAS[2:-1])
    (line,) = (line for line in host.lines if line["step"] == 1)
    assert line["path"] == "observe" and line["reason"].startswith(
        "this call could not be observed: Error: "
    )
    assert host.paths()[2] == "sparse"


def test_a_run_that_never_saw_a_finite_row_stays_dense_and_says_so():
    host = Host(Settings(observe_steps=2))
    host.dense = lambda q, k, v: torch.zeros_like(v)
    host.run(change=lambda q, k, v: (q * float("nan"), k, v))
    assert set(host.session.report.paths) <= {"observe", "dense", "fallback"}
    assert not host.saved and host.reasons()


def test_layers_of_different_heads_do_not_end_the_run():
    """A profile has one number of heads: such a model runs dense, with the reason."""
    host = Host(Settings(observe_steps=1))
    forward = host.session.begin_forward(1.0)
    for layer, heads in (("double.0.0", 2), ("single.0.0", 3)):
        host.call(forward, layer, tensors(heads, 144, 64))
    host.run(SIGMAS[1:-1])
    reason = next(iter(host.reasons()))
    assert (
        reason.startswith("no masks could be made from the watched steps: ") and "heads" in reason
    )
    assert host.session.report.paths["dense"] == 10 and "sparse" not in host.session.report.paths
    assert not host.saved


def test_layers_of_different_grids_do_not_end_the_run():
    host = Host(Settings(observe_steps=1))
    forward = host.session.begin_forward(1.0)
    host.call(forward, "double.0.0", tensors(2, 144, 64))
    host.layout = TokenLayout((9, 6, 8))
    host.call(forward, "double.1.0", tensors(2, 9 * 48, 64))
    host.layout = TokenLayout(GRID)
    host.run(SIGMAS[1:-1])
    assert sum(host.session.report.paths.values()) == 12 and not host.saved


# -- faults around a run ---------------------------------------------------------------------------


def test_a_save_that_fails_does_not_end_the_run():
    def save(profile, tensors):
        raise OSError("disk full")

    host = Host(Settings(observe_steps=2, refresh=False), save_profile=save)
    summary = host.run()
    assert list(host.paths().values()) == ["observe"] * 2 + ["sparse"] * 4
    assert summary["reasons"] == {"the profile could not be saved: disk full": 1}


@pytest.mark.parametrize("settings", [Settings(calibrate=True), Settings(observe_steps=4)],
                         ids=["calibrating", "observing"])  # fmt: skip
def test_an_interrupted_run_saves_nothing(settings):
    host = Host(settings)
    for sigma in SIGMAS[:3]:
        host.evaluate(sigma)
    summary = host.session.finish(ok=False)
    assert not host.saved and summary["ok"] is False
    assert len(host.lines) == 6


def test_a_run_without_any_call_ends_quietly():
    host = Host()
    summary = host.session.finish()
    assert summary["paths"] == {} and summary["grid"] is None and not host.saved


def test_a_run_log_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    host = Host(Settings(observe_steps=2))
    host.session.report.calls.runlog = RunLog(tmp_path / "file" / "runlog.jsonl")
    host.run()
    (reason,) = host.reasons()
    assert reason.startswith("the run log could not be written: ")


@pytest.mark.parametrize("sigmas", [[0.0, 0.5, 1.0], [1.0], [1.0, 1.0]], ids=str)
def test_odd_schedules_do_not_end_a_run(sigmas):
    """Rising sigmas (unsampling), no step at all, a step of no length."""
    host = Host(Settings(observe_steps=1), sigmas=sigmas)
    host.run(sigmas)
    assert sum(host.session.report.paths.values()) == 2 * len(sigmas)


# -- memory and GPUs -------------------------------------------------------------------------------

OUT_OF_MEMORY = {
    "of a GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "of the host": MemoryError(),
}


def raising(error, calls=10**6, otherwise=None):
    """A function that raises for so many calls."""
    left = [calls]

    def function(*args, **kwargs):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return otherwise(*args, **kwargs)

    return function


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_in_the_kernel_is_tried_twice_then_dense(monkeypatch, kind):
    tries = []

    def broken(*args, **kwargs):
        tries.append(1)
        raise OUT_OF_MEMORY[kind]

    monkeypatch.setattr(session, "attention", broken)
    host = sparse_host()
    host.run()
    assert len(tries) == 2 and host.dense_calls == 12
    assert host.session.report.paths == {"fallback": 2, "dense": 10}
    assert host.reasons()["the sparse kernel ran out of memory"] == 10


def test_memory_that_comes_back_leaves_the_run_sparse(monkeypatch):
    once = raising(torch.OutOfMemoryError("no memory"), 1, session.attention)
    monkeypatch.setattr(session, "attention", once)
    host = sparse_host()
    host.run()
    assert host.session.report.paths == {"fallback": 1, "sparse": 11}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_while_observing_costs_samples_only(monkeypatch, kind):
    host = Host(Settings(observe_steps=2, refresh=False))
    observe = raising(OUT_OF_MEMORY[kind], 1, host.session.observer.observe)
    monkeypatch.setattr(host.session.observer, "observe", observe)
    host.run()
    assert host.session.report.paths == {"observe": 4, "sparse": 8}
    assert [line["reason"].startswith("this call could not be observed") for line in host.lines][
        :2
    ] == [True, False]


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_while_planning_leaves_the_run_dense(monkeypatch, kind):
    monkeypatch.setattr(observation, "build_profile", raising(OUT_OF_MEMORY[kind]))
    host = Host(Settings(observe_steps=2))
    host.run()
    assert host.session.report.paths == {"observe": 4, "dense": 8}
    assert next(iter(host.reasons())).startswith("no masks could be made from the watched steps")


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_out_of_memory_while_sampling_costs_a_reading_only(monkeypatch, kind):
    host = sparse_host()
    monkeypatch.setattr(host.session.watch, "call", raising(OUT_OF_MEMORY[kind]))
    host.run()
    assert host.session.report.paths == {"sparse": 12}
    (reason,) = host.reasons()
    assert reason.startswith("a sparse call could not be sampled: ")


def test_renewal_that_fails_leaves_the_masks_as_they_are(monkeypatch):
    host = sparse_host()
    monkeypatch.setattr(host.session.watch.proposals, "_propose", raising(RuntimeError("broken")))
    host.run()
    assert host.session.report.paths == {"sparse": 12}
    assert host.reasons() == {"masks are not renewed any more: RuntimeError: broken": 1}


# -- hosts that behave in their own way ------------------------------------------------------------


def test_texts_of_other_lengths_are_watched_and_renewed_together():
    """cond and uncond in calls of their own, with texts of different lengths."""
    host = Host(Settings(observe_steps=2, density=0.4))
    for sigma in SIGMAS[:-1]:
        for prefix in (9, 4):
            host.layout = TokenLayout(GRID, prefix=prefix)
            host.evaluate(sigma)
    summary = host.session.finish()
    assert summary["paths"] == {"observe": 8, "sparse": 16} and not host.reasons()
    assert summary["renewals"] and summary["renewals"][0][2] == 8


def test_a_batch_of_two_prompts_shares_the_samples():
    host = Host(Settings(observe_steps=1))
    for sigma in SIGMAS[:-1]:
        forward = host.session.begin_forward(sigma)
        for number, layer in enumerate(host.layers):
            host.call(forward, layer, tensors(2, 144, 64, seed=number, batch=2))
    host.session.finish()
    rows = host.session.observer.layers["double.0.0"].accumulators(0)[0].rows
    sampled = {entry["step"] for entry in host.session.watch.meter.history if entry["step"] < 3}
    assert rows == 64 + 32 * len(sampled) and not host.reasons()


def test_steps_out_of_order_end_no_run():
    host = Host(Settings(observe_steps=2))
    host.run([1.0, 0.9, 0.5, 0.7, 0.1, 0.3, 1.0, 0.5, 0.5, 0.1])
    assert host.session.report.paths["sparse"] == 16 and not host.reasons()


def test_a_run_that_ends_lets_go_of_everything():
    """What a finished session still holds is small: no tensor of the model, no plan."""
    host = Host(Settings(observe_steps=2))
    held = []
    call = host.session.attention

    def watched(forward, layer, q, k, v, *rest):
        held.extend(weakref.ref(x) for x in (q, k, v))
        out, ours = call(forward, layer, q, k, v, *rest)
        held.append(weakref.ref(out))
        return out, ours

    host.session.attention = watched
    for sigma in SIGMAS[:4]:
        host.evaluate(sigma)
    plans = [weakref.ref(plan) for plan in host.session.planner.plans().values()]
    assert plans and all(ref() is not None for ref in plans)
    host.session.finish(ok=False)
    gc.collect()
    assert all(ref() is None for ref in [*held, *plans])
    assert not host.session.planner.seen and not host.session.watch.sampling
