"""What newer versions of ComfyUI do around an attention call: containers, functions of layers' own,
calls that must not be quantised, recorded allocations. By stand-ins: see newer_core.py."""

import types

import harness
import newer_core
import pytest
import torch
from harness import close, exact
from newer_core import OVERRIDE, Container

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("folders"),
]
OWN_TOKENS = 144


@pytest.fixture
def core(monkeypatch):
    return newer_core.Core(monkeypatch)


@pytest.fixture
def want(model):
    """The dense result, without our node and without the stand-in."""
    return harness.sample(model)


def grid_calls(core):
    return [one for one in core.containers if one[0].empty or one[0].peek().shape[1] == OWN_TOKENS]


# -- containers ------------------------------------------------------------------------------------


def test_sparse_calls_take_and_dense_ones_hand_on(want, model, core, folders):
    assert close(harness.sample(exact(model)), want)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]
    # Without quantisation nothing is packed, so nothing is taken: 2 layers in 5 sparse steps.
    assert sum(not one[0].empty for one in core.containers) == 10
    # Cross-attention and the watched step came to ComfyUI's function as they were.
    assert core.hosts == [[Container] * 3] * (12 + 2)


def test_what_is_packed_is_taken(model, core, folders):
    out = harness.sample(harness.paro(model))
    assert torch.isfinite(out).all() and folders.steps() == "osssss"
    assert all(c.empty for call in core.containers for c in call)
    # The calls that ComfyUI computed: cross-attention, and two of the watched step.
    assert core.hosts == [[Container] * 3] * (12 + 2)


def test_the_result_is_the_one_of_tensors(model, folders, monkeypatch):
    plain = harness.sample(harness.paro(model, profile="none"))
    newer_core.Core(monkeypatch)
    assert torch.equal(harness.sample(harness.paro(model, profile="none")), plain)


def test_a_masked_call_goes_on_as_it_came(want, model, core, folders):
    core.extra = {"mask": torch.zeros(OWN_TOKENS, OWN_TOKENS)}
    assert close(harness.sample(harness.paro(model)), want)
    assert folders.last()["reasons"] == {"the call has an attention mask": 12}
    assert core.hosts == [[Container] * 3] * 24


def test_dense_steps_of_ours_compare_with_the_models_own(want, model, core, folders, monkeypatch):
    """The first call is computed by both, the third one timed: ComfyUI gets containers each time,
    and q, k and v are still there for ours."""
    from paroattention.run import dense_calls

    monkeypatch.setattr(dense_calls, "fast_at_density_1", lambda q: True)
    ours = harness.paro(model, dense_steps="int8", density=1.0, observe_steps=2, profile="none")
    out = harness.sample(ours)
    end = folders.last()
    assert end["dense_error"] < 0.1 and end["dense_calls"] == {"int8": 4}
    assert close(out, want, 0.1)
    assert core.hosts == [[Container] * 3] * (12 + 2)


@pytest.mark.parametrize("knows", [False, True], ids=["tensors", "containers"])
def test_an_override_before_ours_is_handed_what_it_knows(want, model, core, folders, knows):
    seen = []

    class Theirs:
        def __call__(self, func, q, k, v, *rest, **kwargs):
            seen.append(type(q))
            return func(q, k, v, *rest, **kwargs)

    if knows:

        def container_function(self, *args, **kwargs):
            seen.append(type(args[0]))
            return core.optimized_attention(*args, **kwargs)

        Theirs.container_function = container_function
    base = model.clone()
    base.model_options["transformer_options"][OVERRIDE] = Theirs()
    assert close(harness.sample(exact(base)), want)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]
    # Cross-attention, and the watched step.
    assert seen == [Container if knows else torch.Tensor] * (12 + 2)


def test_an_override_that_calls_back_ends(want, model, core, folders):
    """It drops the mark that keeps ComfyUI's wrapper from asking the override again."""
    depth = []

    def theirs(func, q, k, v, *rest, **kwargs):
        depth.append(1)
        assert len(depth) < 100
        kwargs.pop("_inside_attn_wrapper", None)
        return core.optimized_attention(Container(q), Container(k), Container(v), *rest, **kwargs)

    base = model.clone()
    base.model_options["transformer_options"][OVERRIDE] = theirs
    assert close(harness.sample(exact(base)), want)
    assert folders.steps() == "osssss" and len(depth) == 14
    assert {line["layer"] for line in folders.runs()[-1][:-1]} == {"double.0.0", "double.1.0"}


def test_containers_beside_tensors(want, model, core, folders, monkeypatch):
    import comfy.ldm.wan.model as wan

    def mixed(q, k, v, heads, **kwargs):
        return core.optimized_attention(Container(q), k, Container(v), heads, **kwargs)

    monkeypatch.setattr(wan, "optimized_attention", mixed)
    assert close(harness.sample(exact(model)), want)
    assert folders.steps() == "osssss" and not folders.last()["reasons"]


def test_a_container_that_was_taken_from_is_the_hosts_error(model, core, folders, monkeypatch):
    """Nobody can compute such a call. The error is the container's own, and ours names it."""
    import comfy.ldm.wan.model as wan

    def emptied(q, k, v, heads, **kwargs):
        given = [Container(x) for x in (q, k, v)]
        given[1].take()
        return core.optimized_attention(*given, heads, **kwargs)

    monkeypatch.setattr(wan, "optimized_attention", emptied)
    with pytest.raises(RuntimeError, match="was taken from already"):
        harness.sample(harness.paro(model))
    (reason,) = folders.last()["reasons"]
    assert "the attention call could not be read: RuntimeError: the container was taken" in reason


# -- failure in the middle -------------------------------------------------------------------------


def failing(lets_go, error):
    def kernel(tensors, plan, **options):
        if lets_go:
            tensors[0] = None
        raise error

    return kernel


@pytest.mark.parametrize("error", [RuntimeError("no launch"), torch.OutOfMemoryError("full")])
def test_a_call_that_was_taken_and_fails_comes_to_a_dense_result(
    want, model, core, folders, monkeypatch, error
):
    from paroattention.run import session

    monkeypatch.setattr(session, "attention_letting_go", failing(False, error))
    assert close(harness.sample(harness.paro(model)), want)
    told = " ".join(folders.last()["reasons"])
    assert str(error) in told and folders.last()["paths"].get("sparse") is None
    assert core.hosts[-1] == [Container] * 3


def test_an_error_after_q_is_gone_ends_the_run_and_not_in_a_wrong_picture(
    model, core, folders, monkeypatch
):
    from paroattention.run import session

    error = torch.OutOfMemoryError("full")
    monkeypatch.setattr(session, "attention_letting_go", failing(True, error))
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        harness.sample(harness.paro(model))
    assert folders.last()["ok"] is False


# -- functions of layers' own ----------------------------------------------------------------------


def give_function(model, layer, calls):
    """Layer's self-attention gets a function of its own, as a checkpoint's config would choose."""

    def function(q, k, v, heads, **kwargs):
        from comfy.ldm.modules.attention import attention_pytorch

        assert all(isinstance(x, torch.Tensor) for x in (q, k, v))
        calls.append((layer, tuple(q.shape)))
        return attention_pytorch(q, k, v, heads, **kwargs)

    module = model.model.diffusion_model.blocks[layer].self_attn
    module.comfy_attention = types.SimpleNamespace(function=function, config={"attention": "own"})
    return module


@pytest.fixture
def layered(model):
    calls = []
    module = give_function(model, 1, calls)
    yield calls
    del module.comfy_attention
    assert not module._forward_hooks and not module._forward_pre_hooks


@pytest.mark.parametrize("containers", [False, True], ids=["tensors", "containers"])
def test_a_layer_that_stays_dense_keeps_its_function(
    want, model, layered, folders, request, containers
):
    if containers:
        request.getfixturevalue("core")
    assert close(harness.sample(exact(model)), want)
    assert folders.steps() == "osssss"
    # The watched step's call of that layer; the sparse ones are ours.
    assert layered == [(1, (1, OWN_TOKENS, 256))]


def test_the_function_is_handed_to_an_override_before_ours(want, model, layered, folders):
    def theirs(func, *args, **kwargs):
        return func(*args, **kwargs)

    base = model.clone()
    base.model_options["transformer_options"][OVERRIDE] = theirs
    assert close(harness.sample(exact(base, observe_steps=0, profile="none")), want)
    assert len(layered) == 6


def test_hooks_go_with_a_run_that_fails(model, layered, folders, monkeypatch):
    import comfy.ldm.wan.model as wan

    def broken(*args, **kwargs):
        raise RuntimeError("no attention today")

    monkeypatch.setattr(wan, "optimized_attention", broken)
    with pytest.raises(RuntimeError, match="no attention today"):
        harness.sample(harness.paro(model))


# -- calls that must not be quantised --------------------------------------------------------------


def test_a_call_that_asks_for_full_precision_is_not_quantised(want, model, core, folders):
    core.extra = {"low_precision_attention": False}
    assert close(harness.sample(harness.paro(model)), want)
    (reason,) = folders.last()["reasons"]
    assert reason.startswith("the model asks for full precision here") and "bf16" in reason
    assert folders.last()["paths"] == {}
    # Ours computes without quantisation where the user asks for that.
    assert close(harness.sample(exact(model)), want)
    assert folders.steps() == "osssss"


# -- recorded allocations --------------------------------------------------------------------------

KINDS = {
    "watched and sparse": {},
    "sampled and judged": {"density": 0.2, "observe_steps": 2},
    "found on the fly": {"mask": "dynamic"},
    "to a target": {"target_error": 0.2},
    "dense steps in 8 bits": {"dense_steps": "int8", "start_percent": 0.5},
}


@pytest.fixture
def recorder(model, monkeypatch):
    """Records each block of the model, in a version of ComfyUI that can pause it."""
    recorder = newer_core.Recorder()
    module = types.SimpleNamespace(pause_malloc_graph=recorder.pause)
    monkeypatch.setattr(harness.part("recording"), "model_prefetch", module)
    for number, block in enumerate(model.model.diffusion_model.blocks):
        monkeypatch.setattr(block, "forward", recorder.around(f"block {number}", block.forward))
    return recorder


@pytest.mark.parametrize("containers", [False, True], ids=["tensors", "containers"])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_allocations_repeat_and_none_outlives_its_block(
    model, recorder, folders, monkeypatch, request, kind, containers
):
    from paroattention.run import dense_calls

    monkeypatch.setattr(dense_calls, "fast_at_density_1", lambda q: True)
    if containers:
        request.getfixturevalue("core")
    with recorder:
        harness.sample(harness.paro(model, profile="none", **KINDS[kind]), steps=12)
    assert "s" in folders.steps()
    assert len(recorder.steps) == 2 and not recorder.outlived
    for block, steps in recorder.steps.items():
        assert len(steps) == 12 and steps[0], block
        assert all(sizes == steps[0] for sizes in steps), block


def test_the_recorder_catches_a_breach(model, recorder, folders, monkeypatch):
    """Without the pause: what is kept outlives its block, and steps differ."""
    recording = harness.part("recording")
    import contextlib

    monkeypatch.setattr(recording, "paused", contextlib.nullcontext)
    with recorder:
        harness.sample(harness.paro(model, profile="none"), steps=6)
    assert recorder.outlived
    assert any(sizes != steps[0] for steps in recorder.steps.values() for sizes in steps)
