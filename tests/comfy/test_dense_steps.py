"""Dense steps in 8 bits, in the real ComfyUI: near the model's own, whatever its layout."""

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture(autouse=True)
def processor(monkeypatch):
    """One on which 8 bits are faster, whatever this one is."""
    module = harness.importlib.import_module("paroattention.run.dense_calls")
    monkeypatch.setattr(module, "fast_at_density_1", lambda q: True)


def apart(a, b) -> float:
    return float((a - b).norm() / b.norm())


def test_watched_steps_run_in_8_bits_and_are_checked_against_the_models_own(model, folders):
    watched = {"observe_steps": 3, "profile": "none"}
    dense = harness.sample(model, steps=3)
    out = harness.sample(harness.paro(model, dense_steps="int8", **watched), steps=3)
    own = harness.sample(harness.paro(model, dense_steps="model", **watched), steps=3)
    assert folders.runs()[-2][-1]["dense_calls"].keys() == {"int8"}
    assert 0 < folders.runs()[-2][-1]["dense_error"] < 0.03
    assert folders.last()["dense_calls"].keys() == {"model"}
    assert torch.equal(own, dense) and 0 < apart(out, dense) < 0.02
    # The same bits from run to run.
    again = harness.sample(harness.paro(model, dense_steps="int8", **watched), steps=3)
    assert torch.equal(out, again)


def test_steps_before_start_percent_do_so_too(model, folders):
    harness.sample(harness.paro(model, observe_steps=1), steps=4)
    patched = harness.paro(model, start_percent=0.5, dense_steps="int8")
    harness.sample(patched, steps=4, seed=2)
    assert folders.steps() == "ddss" and folders.last()["dense_calls"].keys() == {"int8"}


def test_a_calibration_is_exactly_dense_unless_8_bits_are_asked_for(model, folders):
    dense = harness.sample(model)
    assert torch.equal(harness.sample(harness.calibrate(model)), dense)
    assert folders.last()["dense_calls"].keys() == {"model"}
    near = harness.sample(harness.calibrate(model, dense_steps="int8", exact=True))
    assert folders.last()["dense_calls"].keys() == {"int8"}
    assert 0 < apart(near, dense) < 0.02
