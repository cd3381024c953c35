"""Beside other attention overrides, and where a model or a core is not what we know."""

import harness
import pytest
import torch
from harness import close, exact

OVERRIDE = "optimized_attention_override"
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("folders"),
]


# -- other overrides -------------------------------------------------------------------------------


def test_an_override_that_comes_later_stays_behind_ours(model, folders):
    """It would have replaced ours without a word: the node order decides nothing."""
    seen = []

    def theirs(func, *args, **kwargs):
        seen.append(args[1].shape[-2])
        return func(*args, **kwargs)

    want = harness.sample(model)
    wrapped = exact(model)
    wrapped.model_options["transformer_options"][OVERRIDE] = theirs
    assert close(harness.sample(wrapped), want)
    assert folders.steps() == "osssss"
    (reason,) = folders.last()["reasons"]
    # It is named, so that its author can be told.
    assert reason.startswith("another node replaced the attention function later (test_other_over")
    assert ".theirs): it serves the dense calls" in reason
    assert seen.count(144) == 2 and seen.count(4) == 12
    assert wrapped.model_options["transformer_options"][OVERRIDE] is theirs


def test_an_override_that_is_set_again_before_every_evaluation(model, folders):
    """As ComfyUI's own sparse node does."""
    from comfy.patcher_extension import WrappersMP

    def theirs(func, *args, **kwargs):
        return func(*args, **kwargs)

    def again(executor, *args, **kwargs):
        args[5][OVERRIDE] = theirs
        return executor(*args, **kwargs)

    wrapped = exact(model)
    wrapped.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "theirs", again)
    assert close(harness.sample(wrapped), harness.sample(model))
    assert folders.steps() == "osssss" and len(folders.last()["reasons"]) == 1


# -- models that bring their own layout ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mapping", "Geometry"])
def test_a_layout_in_transformer_options(model, folders, kind, monkeypatch):
    config = dict(model.model.model_config.unet_config) | {"image_model": "mystery"}
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    layouts = harness.part("layouts")

    def own(inputs):
        grid = layouts.patches(inputs.x, (1, 2, 2))
        found = {"grid": grid, "texts": (inputs.text_length,)}
        return layouts.Geometry(**found) if kind == "Geometry" else found

    base = model.clone()
    base.model_options["transformer_options"]["paro_geometry"] = own
    assert close(harness.sample(exact(base)), harness.sample(model))
    assert folders.steps() == "osssss"


def test_a_registered_family(model, folders, monkeypatch):
    layouts = harness.part("layouts")
    config = dict(model.model.model_config.unet_config) | {"image_model": "mystery"}
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    monkeypatch.setattr(layouts, "_FAMILIES", dict(layouts._FAMILIES))
    layouts.register("mystery")(lambda inputs: layouts.Geometry((3, 6, 8)))
    assert "mystery" in layouts.families()
    assert close(harness.sample(exact(model)), harness.sample(model))
    assert folders.steps() == "osssss"


def failing(*args, **kwargs):
    raise RuntimeError("no such thing")


# What another version of ComfyUI or another node may do to us, by where it meets us.
SURPRISES = {
    "a model that cannot be read": ("identity.fingerprint", "_architecture", None),
    "an evaluation that is not understood": ("evaluation", "_by_name", "could not be read"),
    "a call that is not understood": ("override", "_Arguments", "could not be read"),
    "a gain that cannot be predicted": ("policy", "block_weights", "could not be read"),
}


@pytest.mark.parametrize("case", SURPRISES)
def test_surprises_keep_the_run_dense_or_say_so(model, folders, monkeypatch, case):
    """Never the node that breaks the graph."""
    where, name, told = SURPRISES[case]
    want = harness.sample(model)
    monkeypatch.setattr(harness.part(where), name, failing)
    out = harness.sample(exact(model) if told is None else harness.paro(model))
    if told is None:
        assert torch.equal(out, want) and folders.runs() == []
    else:
        assert torch.isfinite(out).all()
        (reason,) = folders.last()["reasons"]
        assert told in reason and "no such thing" in reason
        # Without the model's own arguments the latent's shape is still known.
        dense = torch.equal(out, want)
        assert dense == (where != "evaluation")


def test_a_report_that_fails_does_not_lose_the_result(model, folders, monkeypatch):
    monkeypatch.setattr(harness.part("panel").Panel, "close", failing)
    assert close(harness.sample(exact(model)), harness.sample(model))


def test_a_layout_of_another_node_that_fails(model, folders):
    base = model.clone()
    base.model_options["transformer_options"]["paro_geometry"] = failing
    assert torch.equal(harness.sample(harness.paro(base)), harness.sample(model))
    (reason,) = folders.last()["reasons"]
    assert "paro_geometry function failed" in reason and "no such thing" in reason


def test_a_layout_that_fails_keeps_the_run_dense(model, folders, monkeypatch):
    layouts = harness.part("layouts")
    monkeypatch.setattr(layouts, "_FAMILIES", {"wan2.1": lambda inputs: inputs.model.nothing})
    want = harness.sample(model)
    assert torch.equal(harness.sample(harness.paro(model)), want)
    (reason,) = folders.last()["reasons"]
    assert "token layout of model family wan2.1 cannot be read" in reason and "nothing" in reason
