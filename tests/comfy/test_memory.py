"""A run lets go of what it has seen at once, not at the next search for cycles (GPU memory)."""

import gc
import weakref

import harness
import pytest

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def without_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _watched(model):
    """A clone of the model, and references to the latent and text of each of its evaluations."""
    from comfy.patcher_extension import WrappersMP

    seen, clone = [], model.clone()

    def look(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        seen.extend(weakref.ref(one) for one in (x, t, c_crossattn))
        return executor(x, t, c_concat, c_crossattn, *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", look)
    return clone, seen


@pytest.mark.parametrize("kind", ["dense", "observed", "calibrated"])
def test_evaluations_let_go_of_their_tensors(model, without_collection, kind):
    watched, seen = _watched(model)
    ours = {"dense": lambda x: x, "observed": harness.paro, "calibrated": harness.calibrate}[kind]
    harness.sample(ours(watched), cfg=3.0)
    assert len(seen) >= 3 * 6
    assert sum(one() is not None for one in seen) == 0
