"""An error in each callback of ours in turn: the run ends with a result, and says why, once.

What ComfyUI calls of ours: the override, the wrappers, the sampler's callback, hooks on modules,
the progress. Each is broken from its first call on, then from a later one.
"""

import logging

import harness
import pytest
import torch
from harness import close

STEPS = 3
MESSAGE = "no such thing"
# What the host computes is then all of the run from the broken call on.
GIVEN_UP = "the rest of this run is dense"
# By the place that fails: (module of ours, name, what the node is told; None: nothing is lost).
PLACES = {
    "the wrapper of a model call": ("run", "Run.begin_call", GIVEN_UP),
    "the end of a model call": ("run", "Run.end_call", GIVEN_UP),
    "the wrapper of an evaluation": ("run", "Run.begin_forward", GIVEN_UP),
    "the override put back": ("run", "Run.stay_in", GIVEN_UP),
    "the sampler's callback": ("run", "Run.came_to", GIVEN_UP),
    "the decision on the run": ("run", "Run.refusal", "could not be read"),
    "the lookup": ("run", "Run.find", "could not be read"),
    "saving": ("run", "Run.save", "could not be saved"),
    "the last notes": ("run", "Run._note_last", "could not be summed up"),
    "the log's last lines": ("run", "Run._log", None),
    "hooks put on modules": ("layer_functions", "LayerFunctions.watch", GIVEN_UP),
    "the layer's own function": ("layer_functions", "LayerFunctions.current", GIVEN_UP),
    "an evaluation": ("evaluation", "Evaluation.__init__", GIVEN_UP),
    "an evaluation's arguments": ("evaluation", "Evaluation.enter_model", "could not be read"),
    "an evaluation's end": ("evaluation", "Evaluation.close", GIVEN_UP),
    "the layer's number": ("evaluation", "Evaluation.layer_id", "could not be read"),
    "the count of calls": ("seen", "Seen.call", GIVEN_UP),
    "the count of others' calls": ("seen", "Seen.add", GIVEN_UP),
    "the count of steps": ("seen", "Seen.begin", "could not be told"),
    "the sampler's steps": ("seen", "Seen.pass_step", GIVEN_UP),
    "the panel's times": ("panel", "StepTimes.begin", "could not be told"),
    "the panel's state": ("panel", "Panel.state", "could not be shown"),
    "the progress bar": ("panel", "NodeProgress.__call__", "could not be shown"),
    "the override": ("override", "_taken", GIVEN_UP),
    "the override's arguments": ("override", "_Arguments", "could not be read"),
    "the pause of a recording": ("recording", "paused", GIVEN_UP),
    "the session's call": ("native", "paro.Session.attention_of", GIVEN_UP),
    "the session's decision": ("native", "paro.Session._decide", MESSAGE),
    "the session's evaluation": ("native", "paro.Session.begin_forward", GIVEN_UP),
    "a step that begins": ("native", "paro.session.Session._begin_step", "not renewed any more"),
    "the log of a call": ("native", "paro.session.Report.call", "could not be counted"),
    "the node's text": ("native", "paro.session.Report.text", "could not be shown"),
    "the run log": ("native", "paro.session.RunLog.flush", None),
}  # fmt: skip


def failing_from(first, function):
    """The function, whose call number `first` and all later ones fail."""
    count = [0]

    def failing(*args, **kwargs):
        count[0] += 1
        if count[0] >= first:
            raise RuntimeError(MESSAGE)
        return function(*args, **kwargs)

    failing.count = count
    return failing


def broken(monkeypatch, place, first):
    """Breaks a place of ours; returns the function that counts its calls."""
    module, path, _ = PLACES[place]
    holder = harness.part(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    function = failing_from(first, getattr(holder, name))
    monkeypatch.setattr(holder, name, function)
    return function


@pytest.fixture(scope="module")
def want(model):
    """The dense result."""
    return harness.sample(model, steps=STEPS)


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def told_of(sent) -> list[str]:
    """The reasons on the node in its last state, those of the error alone."""
    states = [data for event, data in sent if event == "paro.status"]
    assert states[-1]["done"]
    return [one["text"] for one in states[-1]["reasons"] if MESSAGE in one["text"]]


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize("place", PLACES)
def test_the_run_goes_on_and_says_why(model, want, folders, sent, monkeypatch, log, place, first):
    told = PLACES[place][2]
    with monkeypatch.context() as patch:
        function = broken(patch, place, first)
        out = harness.sample(harness.paro(model), steps=STEPS)
    assert out.shape == want.shape and torch.isfinite(out).all()
    happened = function.count[0] >= first
    assert happened or first > 1
    if first == 1 and told in (GIVEN_UP, "could not be read") and "last" not in place:
        # Nothing of ours has computed anything, or all of it exactly as the host does.
        dense = place not in ("an evaluation's arguments", "the sampler's callback", "the lookup")
        assert not dense or torch.equal(out, want)
    # On the node once, in the log a few times at most: once as it happens, once at the end.
    shows = place not in ("the panel's state", "the progress bar", "the node's text")
    if happened and told is not None and shows:
        reasons = told_of(sent)
        # The panel's times are asked for once more at the end, for another purpose.
        times = place == "the panel's times"
        assert len(reasons) == 1 or times, reasons
        assert told in reasons[0] or (times and first > 1)
    lines = [line for line in log.text.splitlines() if MESSAGE in line]
    assert len(lines) <= 3, lines
    if told == "could not be shown":
        assert folders.steps() == "oss"
    # What is on the disk is whole.
    for name in folders.names():
        if name.endswith(".json"):
            folders.load(name.removesuffix(".json"))
        assert name.endswith((".json", ".capture.safetensors"))
    if told == GIVEN_UP and happened and "last" not in place:
        assert not folders.names() or first > 1


def test_after_all_of_them_runs_are_as_before(model, want, folders, monkeypatch):
    for place in PLACES:
        with monkeypatch.context() as patch:
            broken(patch, place, 1)
            harness.sample(harness.paro(model, profile="none"), steps=1)
    assert torch.equal(harness.sample(model, steps=STEPS), want)
    harness.sample(harness.paro(model, profile="none"), steps=STEPS)
    assert folders.steps() == "o" + "s" * (STEPS - 1) and folders.last()["reasons"] == {}


@pytest.mark.parametrize("first", [2, 4, 6])
def test_of_a_run_that_was_left_while_it_watched_nothing_is_saved(
    model, folders, monkeypatch, first
):
    """A profile of half the layers, or of half the steps, would be found by later runs."""
    with monkeypatch.context() as patch:
        broken(patch, "the wrapper of an evaluation", first)
        harness.sample(harness.paro(model, observe_steps=6), steps=6)
    assert folders.names() == [] and not folders.last()["ok"]
    harness.sample(harness.paro(model, observe_steps=6), steps=6)
    assert len(folders.names()) == 2 and folders.last()["ok"]


# -- the host's own errors -------------------------------------------------------------------------


class Stop(Exception):
    """What the model or another node raises."""


def with_attention(model, function):
    clone = model.clone()
    clone.model_options["transformer_options"]["optimized_attention_override"] = function
    return clone


@pytest.mark.parametrize("at", [1, 3, 6])
def test_an_error_of_the_host_is_the_hosts(model, folders, at):
    """It is neither tried again nor told as ours."""
    calls = []

    def attention(func, *args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise Stop("theirs")
        return func(*args, **kwargs)

    wrapped = harness.paro(with_attention(model, attention), observe_steps=2)
    with pytest.raises(Stop, match="theirs"):
        harness.sample(wrapped, steps=STEPS)
    assert len(calls) == at
    assert not folders.last()["ok"] and not folders.last()["reasons"] and not folders.names()


# -- hooks on modules ------------------------------------------------------------------------------


class Broken:
    """In the place of an attribute: set and never read."""

    def __set__(self, owner, value):
        pass

    def __get__(self, owner, kind=None):
        raise RuntimeError(MESSAGE)


def test_hooks_on_modules(model, want, folders, monkeypatch):
    """Newer cores: a layer has an attention function of its own, which hooks of ours note."""
    from types import SimpleNamespace

    from comfy.ldm.modules import attention

    block = model.model.diffusion_model.blocks[0].self_attn
    own = SimpleNamespace(function=lambda *a, **kw: attention.optimized_attention(*a, **kw))
    monkeypatch.setattr(block, "comfy_attention", own, raising=False)
    hooks = harness.part("layer_functions").LayerFunctions
    monkeypatch.setattr(hooks, "_here", Broken(), raising=False)
    out = harness.sample(harness.paro(model), steps=STEPS)
    assert close(out, want) and not block._forward_hooks and not block._forward_pre_hooks
    (reason,) = folders.last()["reasons"]
    assert reason == f"{GIVEN_UP}: RuntimeError: {MESSAGE}"


def test_what_other_nodes_leave_in_place_of_a_text(model):
    """A patch of ours sees what the others made of text and image; it may be anything."""
    evaluation = harness.part("evaluation").Evaluation(None, "flux", None)
    for arguments in ({"txt": None, "img": None}, {"txt": torch.zeros(1)}, {}):
        assert evaluation._see_joined(arguments) is arguments
