"""The nodes between a real model and ComfyUI's samplers: what they change, and what they do not."""

import copy

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

OVERRIDE = "optimized_attention_override"


@pytest.fixture(scope="module")
def dense(model):
    return harness.sample(model)


def state(model):
    return {name: weight.clone() for name, weight in model.model.state_dict().items()}


def close(a, b, tolerance=1e-4):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [True, False], ids=["tail", "no tail"])
def test_density_1_unquantised_is_the_dense_result(model, dense, folders, tail):
    wrapped = harness.paro(model, density=1.0, precision="bf16", tail=tail)
    out = harness.sample(wrapped)
    assert folders.steps() == "osssss" and folders.last()["density"] == 1
    assert close(out, dense)


def test_observed_steps_alone_are_bit_equal(model, dense, folders):
    out = harness.sample(harness.paro(model, observe_steps=6))
    assert folders.steps() == "oooooo"
    assert torch.equal(out, dense)


def test_a_sparse_run_is_near_the_dense_one(model, dense, folders):
    out = harness.sample(harness.paro(model, density=0.5))
    assert folders.steps() == "osssss" and not torch.equal(out, dense)
    assert float((out - dense).norm() / dense.norm()) < 0.2
    end = folders.last()
    assert end["precision"] == "int8" and end["grid"] == [3, 6, 8] and not end["reasons"]


def test_two_runs_of_one_seed_are_equal(model):
    wrapped = harness.paro(model, profile="none")
    assert torch.equal(harness.sample(wrapped, seed=5), harness.sample(wrapped, seed=5))


def test_percents(model, folders):
    harness.sample(harness.paro(model, save_as="p"))
    harness.sample(harness.paro(model, profile="p", start_percent=0.5, end_percent=0.9))
    assert folders.steps() == "dddsss"
    harness.sample(harness.paro(model, profile="p", start_percent=0.0, end_percent=0.5))
    assert folders.steps() == "sssddd" and not folders.last()["reasons"]


# -- what stays as it was --------------------------------------------------------------------------


def test_a_target_error_takes_the_densitys_place(model, folders):
    """Prompts of before this widget leave it out: then, and at 0, the density counts."""
    densities = []
    for given in ({}, {"target_error": 0.0}, {"target_error": 0.3}, {"target_error": 0.02}):
        harness.sample(harness.paro(model, profile="none", **given))
        densities.append(folders.last()["density"])
        assert (folders.last()["budgets"] == []) == (given.get("target_error", 0) == 0)
    assert densities[0] == densities[1] < densities[3] and densities[2] < densities[3]


def test_what_came_later_is_optional(model):
    node = harness.part("nodes").PAROAttention
    known = node.GET_NODE_INFO_V1()["input"]
    assert list(known["optional"]) == ["target_error", "dense_steps", "watch"]
    assert "density" in known["required"]
    assert known["optional"]["target_error"][1]["default"] == 0
    assert known["optional"]["dense_steps"][1]["default"] == "int8"
    assert known["optional"]["watch"][1]["default"] == "always"
    assert node.validate_inputs(density=0.3, target_error=0) is True


def test_the_base_model_is_untouched(model, dense):
    before = state(model)
    options, wrappers = copy.deepcopy(model.model_options), copy.deepcopy(model.wrappers)
    wrapped = harness.paro(model)
    assert wrapped is not model and wrapped.model is model.model
    harness.sample(wrapped)
    assert model.model_options == options and model.wrappers == wrappers
    assert OVERRIDE not in model.model_options["transformer_options"]
    after = model.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_removing_the_node_restores_the_result_bit_by_bit(model, dense):
    harness.sample(harness.paro(model))
    harness.sample(harness.calibrate(model))
    assert torch.equal(harness.sample(model), dense)


def test_a_run_that_fails_restores_the_model_too(model, dense):
    def failing(func, *args, **kwargs):
        raise ValueError("not ours")

    broken = with_override(model, failing)
    with pytest.raises(ValueError, match="not ours"):
        harness.sample(harness.paro(broken))
    assert torch.equal(harness.sample(model), dense)


def test_a_run_leaves_nothing_in_the_wrapped_model(model):
    wrapped = harness.paro(model)
    options = copy.deepcopy(wrapped.model_options["transformer_options"])
    harness.sample(wrapped)
    assert set(wrapped.model_options["transformer_options"]) == set(options)


# -- with other overrides --------------------------------------------------------------------------


def with_override(model, override):
    clone = model.clone()
    clone.model_options["transformer_options"][OVERRIDE] = override
    return clone


class Counting:
    """Another node's override: hands everything on, and counts it by token counts."""

    def __init__(self):
        self.calls = []

    def __call__(self, func, *args, **kwargs):
        q, k = args[0], args[1]
        self.calls.append((q.shape[-2], k.shape[-2]))
        return func(*args, **kwargs)

    def count(self):
        own = sum(q == k for q, k in self.calls)
        return {"self": own, "cross": len(self.calls) - own}


def test_a_pass_through_override_sees_every_call_without_us(model, dense):
    counting = Counting()
    assert torch.equal(harness.sample(with_override(model, counting)), dense)
    assert counting.count() == {"self": 12, "cross": 12}


def test_a_previous_override_stays_the_fallback(model, folders):
    """It gets cross-attention and what runs dense; the sparse calls are ours."""
    counting = Counting()
    wrapped = harness.paro(with_override(model, counting), observe_steps=2)
    harness.sample(wrapped)
    assert folders.steps() == "oossss"
    assert counting.count() == {"self": 4, "cross": 12}


def test_what_a_previous_override_returns_is_handed_back(model):
    """Even if it changes the result: a dense step gives exactly what it gives without us."""

    def halving(func, *args, **kwargs):
        return func(*args, **kwargs) / 2

    changed = with_override(model, halving)
    want = harness.sample(changed)
    assert torch.equal(harness.sample(harness.paro(changed, observe_steps=6)), want)


def test_the_same_previous_override_serves_two_nodes(model, folders):
    counting = Counting()
    once = harness.paro(with_override(model, counting), observe_steps=6, profile="none")
    twice = harness.paro(once, observe_steps=6, profile="none")
    harness.sample(twice)
    assert counting.count() == {"self": 12, "cross": 12}
    assert len(folders.runs()) == 1


def test_another_override_between_two_of_our_nodes(model, folders):
    """Dense steps pass the other override to our first node's: the call is watched once."""
    first = harness.paro(model)
    inner = first.model_options["transformer_options"][OVERRIDE]
    between = with_override(first, lambda func, *a, **kw: inner(func, *a, **kw))
    harness.sample(harness.paro(between, profile="none", save_as="mine", observe_steps=2))
    assert folders.steps() == "oossss" and folders.last()["paths"] == {"observe": 4, "sparse": 8}
    assert folders.load("mine").layer_ids() == ["double.0.0", "double.1.0"]


def ours(model):
    """How often each of our wrappers stands on a model."""
    keys = [model.wrappers[kind].get("paro", []) for kind in model.wrappers]
    return [len(found) for found in keys if found]


def test_a_second_node_replaces_the_first(model, folders):
    first = harness.paro(model, density=0.5, save_as="first")
    second = harness.paro(first, density=1.0, precision="bf16", save_as="second")
    assert ours(first) == ours(second) == [1, 1, 1, 1]
    assert second.model_options["transformer_options"][OVERRIDE].previous is None
    harness.sample(second)
    assert len(folders.runs()) == 1 and folders.last()["density"] == 1
    assert folders.names() == ["second.capture.safetensors", "second.json"]


def test_replacing_leaves_the_first_node_working(model, folders):
    first = harness.paro(model, save_as="first")
    harness.paro(first, save_as="second")
    harness.sample(first)
    assert "first.json" in folders.names() and "second.json" not in folders.names()


def test_calibrate_after_attention_replaces_it(model, dense, folders):
    out = harness.sample(harness.calibrate(harness.paro(model, save_as="sparse")))
    assert folders.steps() == "oooooo" and torch.equal(out, dense)
    assert folders.names() == ["mine.capture.safetensors", "mine.json"]


def test_attention_after_calibrate_replaces_it(model, folders):
    harness.sample(harness.paro(harness.calibrate(model), save_as="sparse"))
    assert folders.steps() == "osssss"
    assert folders.names() == ["sparse.capture.safetensors", "sparse.json"]


def test_wrappers_of_others_stay(model):
    from comfy.patcher_extension import WrappersMP

    seen = []

    def other(executor, *args, **kwargs):
        seen.append(kwargs.get("seed", args[7] if len(args) > 7 else None))
        return executor(*args, **kwargs)

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "other", other)
    harness.sample(harness.paro(harness.paro(clone)), seed=77)
    assert len(seen) == 1


# -- compare ---------------------------------------------------------------------------------------


def compare(a, b):
    return harness.run_node(harness.part("nodes").PAROCompare, images_a=a, images_b=b)


def test_compare_tells_psnr_ssim_and_flicker():
    a = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 0.8
    text, difference = compare(a, a + 0.1)
    assert "PSNR 20.00 dB" in text and "SSIM" in text and "flicker 1.000" in text
    assert torch.allclose(difference, torch.full_like(a, 0.4), atol=1e-5)


def test_compare_of_equal_images():
    text, difference = compare(torch.rand(1, 8, 8, 3), torch.zeros(1, 8, 8, 3))
    assert "PSNR" in text
    same = torch.rand(2, 8, 8, 3)
    text, difference = compare(same, same)
    assert "PSNR inf dB" in text and not difference.any()


def test_compare_refuses_other_shapes():
    import paroattention

    with pytest.raises(paroattention.Error, match=r"images_b must have .*\(2, 8, 8, 3\).*\(1, "):
        compare(torch.rand(2, 8, 8, 3), torch.rand(1, 8, 8, 3))


@pytest.mark.parametrize("lasting", [True, False], ids=["0.0.2", "latest"])
def test_the_interface_that_lasts_is_taken_where_there_is_one(monkeypatch, lasting):
    import importlib
    import sys

    harness.start()
    from comfy_api import latest, v0_0_2

    api = harness.part("api")
    given = object()
    monkeypatch.setattr(v0_0_2, "ui", given)
    if not lasting:
        monkeypatch.setitem(sys.modules, "comfy_api.v0_0_2", None)
    try:
        found = importlib.reload(api)
        assert found.ui is (given if lasting else latest.ui)
        assert found.io is latest.io and found.ComfyExtension is latest.ComfyExtension
    finally:
        monkeypatch.undo()
        importlib.reload(api)
