"""Runs as ComfyUI's samplers make them: several evaluations a step, parts of a run, interrupts,
two runs at once."""

import threading

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

OVERRIDE = "optimized_attention_override"
GRID_TOKENS = 3 * 6 * 8


def with_override(model, override):
    clone = model.clone()
    clone.model_options["transformer_options"][OVERRIDE] = override
    return clone


class Counting:
    """Counts self-attention calls of the grid, and may act at one of them."""

    def __init__(self, at=None, action=None):
        self.calls, self.at, self.action = 0, at, action

    def __call__(self, func, *args, **kwargs):
        if args[1].shape[-2] == GRID_TOKENS:
            self.calls += 1
            if self.calls == self.at:
                self.action()
        return func(*args, **kwargs)


def evaluations(model, **options):
    """How often a sampler calls the model, counted without us; two layers a call."""
    counting = Counting()
    harness.sample(with_override(model, counting), **options)
    return counting.calls // 2


# Evaluations a step: 1 of euler; 2 of heun and dpm_2 but for the last; dpm_adaptive as it likes.
SAMPLERS = ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2s_ancestral", "dpm_adaptive",
            "uni_pc", "res_multistep", "lcm"]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_evaluation_belongs_to_a_step(model, folders, sampler):
    count = evaluations(model, sampler=sampler, steps=4)
    out = harness.sample(harness.paro(model, observe_steps=2), sampler=sampler, steps=4)
    assert torch.isfinite(out).all()
    paths = folders.last()["paths"]
    assert set(paths) == {"observe", "sparse"} and sum(paths.values()) == 2 * count
    # All of a step's evaluations went one way, the first two steps observing.
    assert folders.steps().strip("o") == "s" * (len(folders.steps()) - 2)
    assert len(folders.steps()) <= 4 and not folders.last()["reasons"]


def test_sigmas_are_those_of_the_schedule(model, folders):
    import comfy.samplers

    schedule = comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), "simple", 6
    )
    harness.sample(harness.calibrate(model), steps=6)
    logged = [line["sigma"] for line in folders.runs()[-1][:-1]]
    assert logged == pytest.approx([s for s in schedule.tolist()[:-1] for _ in range(2)], rel=1e-5)
    middle, last = float(schedule[3]), float(schedule[-1])
    assert folders.load("mine").timestep_groups == [(1.0, middle), (middle, last)]


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpm_adaptive"])
def test_density_1_is_the_dense_result(model, sampler):
    want = harness.sample(model, sampler=sampler, steps=4)
    wrapped = harness.paro(model, density=1.0, precision="bf16")
    out = harness.sample(wrapped, sampler=sampler, steps=4)
    assert (out - want).abs().max() < 1e-3 * want.abs().max()


def test_heun_is_counted(model):
    assert evaluations(model, sampler="heun", steps=4) == 7
    assert evaluations(model, sampler="dpm_adaptive", steps=4) > 8


def test_a_run_in_two_parts(model, folders):
    """KSamplerAdvanced: each part is a run of its own; the second finds what the first saved."""
    wrapped = harness.paro(model, observe_steps=2)
    harness.sample(wrapped, steps=6, start=0, end=3)
    assert folders.steps() == "oos" and folders.last()["steps"] == 3
    harness.sample(wrapped, steps=6, start=3, end=6)
    assert folders.steps() == "sss" and folders.last()["steps"] == 3


def test_a_second_part_alone_observes_its_own_steps(model, folders):
    harness.sample(harness.paro(model, profile="none", observe_steps=2), steps=6, start=3)
    assert folders.steps() == "oos"


def test_a_start_after_the_end_runs_nothing(model, folders):
    harness.sample(harness.paro(model), steps=4, start=4, end=4)
    assert folders.names() == []


@pytest.mark.parametrize("steps", [1, 2])
def test_very_short_runs(model, folders, steps):
    harness.sample(harness.calibrate(model), steps=steps)
    harness.sample(harness.paro(model, profile="mine"), steps=steps)
    assert folders.steps() == "s" * steps


@pytest.mark.parametrize(
    ("words", "calls"), [((4, 7), 2), ((4, 4), 1)], ids=["calls of their own", "one batch"]
)
def test_cond_and_uncond(model, folders, words, calls):
    texts = [harness.conditioning(count, seed=count) for count in words]
    options = {"cfg": 4.0, "steps": 4, "positive": texts[0], "negative": texts[1]}
    assert evaluations(model, **options) == 4 * calls
    want = harness.sample(model, **options)
    out = harness.sample(harness.paro(model, density=1.0, precision="bf16"), **options)
    assert folders.steps() == "osss"
    assert folders.last()["paths"] == {"observe": 2 * calls, "sparse": 6 * calls}
    assert (out - want).abs().max() < 1e-3 * want.abs().max()


def test_both_conditionings_are_watched(model, folders):
    texts = {"positive": harness.conditioning(4), "negative": harness.conditioning(7)}
    wrapped = harness.paro(model)
    harness.sample(wrapped, cfg=4.0, **texts)
    assert folders.last()["paths"]["observe"] == 4
    assert len(folders.names()) == 2


# -- interrupts ------------------------------------------------------------------------------------


def interrupting(model, at, action):
    return with_override(model, Counting(at, action))


def raises():
    import comfy.model_management

    raise comfy.model_management.InterruptProcessingException()


def sets_the_flag():
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()


@pytest.mark.parametrize("action", [raises, sets_the_flag], ids=lambda action: action.__name__)
@pytest.mark.parametrize("node", ["calibrate", "attention"])
def test_an_interrupt_saves_nothing_half_done(model, folders, node, action):
    import comfy.model_management

    broken = interrupting(model, 5, action)
    if node == "calibrate":
        wrapped = harness.calibrate(broken)
    else:
        wrapped = harness.paro(broken, observe_steps=4)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        harness.sample(wrapped)
    assert folders.names() == [] and folders.last()["ok"] is False
    assert folders.last()["paths"] == {"observe": folders.last()["paths"]["observe"]}
    # The same node output again: nothing of the broken run is left.
    harness.sample(wrapped)
    assert folders.last()["ok"] and len(folders.names()) == 2
    assert folders.steps() == ("oooooo" if node == "calibrate" else "ooooss")


def test_an_interrupt_while_sparse_keeps_what_was_saved_before(model, folders):
    import comfy.model_management

    # Dense calls alone reach the other override: the sparse ones are interrupted by the flag.
    wrapped = harness.paro(model, save_as="kept")
    harness.sample(wrapped)
    before = folders.load("kept").dump()
    raising = interrupting(model, 1, raises)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        harness.sample(harness.paro(raising, profile="kept", start_percent=0.5))
    assert folders.load("kept").dump() == before and len(folders.names()) == 2


def test_an_interrupted_run_leaves_the_model_as_it_was(model):
    import comfy.model_management

    want = harness.sample(model)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        harness.sample(harness.paro(interrupting(model, 2, raises)))
    assert torch.equal(harness.sample(model), want)


# -- two runs at once ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_model():
    """One model's weights serve one run at a time in ComfyUI: two runs need two models."""
    return harness.tiny_wan(seed=1)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_run_inside_another_one(model, other_model, folders, at):
    """A sampler started from within another's model call."""
    inner = harness.paro(other_model, profile="none", observe_steps=2)
    outs = []

    def nested():
        outs.append(harness.sample(inner, seed=9))

    counting = Counting(at, nested)
    outer = harness.paro(with_override(model, counting), profile="none", observe_steps=3)
    out = harness.sample(outer, seed=8)
    first, second = folders.runs()  # The inner one ends first.
    assert first[-1]["paths"] == {"observe": 4, "sparse": 8} and not first[-1]["reasons"]
    assert second[-1]["paths"] == {"observe": 6, "sparse": 6} and not second[-1]["reasons"]
    alone = harness.paro(model, profile="none", observe_steps=3)
    assert torch.equal(out, harness.sample(alone, seed=8))
    assert torch.equal(outs[0], harness.sample(inner, seed=9))


def test_runs_in_two_threads(model, other_model, folders):
    """At the same time, each with settings of its own."""
    jobs = {
        "a": harness.paro(model, profile="none", observe_steps=2, save_as="a"),
        "b": harness.paro(other_model, profile="none", observe_steps=4, save_as="b"),
    }
    for each in (model, other_model):
        harness.sample(each, steps=1)  # Loading weights is not made for threads.
    outs, failures = {}, []

    def work(name):
        try:
            with torch.inference_mode():
                outs[name] = harness.sample(jobs[name])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and all(torch.isfinite(out).all() for out in outs.values())
    paths = sorted(run[-1]["paths"]["observe"] for run in folders.runs())
    assert paths == [4, 8] and all(len(run) == 13 for run in folders.runs())
    assert [name for name in folders.names() if name.endswith(".json")] == ["a.json", "b.json"]
