"""Peak memory of a call whose q, k and v ComfyUI hands over in containers, by the real override."""

import gc
import os
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMFYUI_DIR"), reason="COMFYUI_DIR names no ComfyUI"
)
BATCH, HEADS, DIM, GRID = 1, 24, 128, (13, 30, 52)


@pytest.fixture(scope="module")
def newer_core():
    sys.path.insert(0, str(Path(__file__).parents[1] / "comfy"))
    import harness

    harness.start()
    import newer_core

    return newer_core


def _peak(function) -> int:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    begin = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - begin


def _tensors():
    length = GRID[0] * GRID[1] * GRID[2]
    draw = torch.Generator("cuda").manual_seed(0)
    shape = (BATCH, length, HEADS * DIM)
    return [
        torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=draw) for _ in range(3)
    ]


@pytest.mark.parametrize("steps", ["sparse", "sampled"])
def test_a_container_call_needs_less_than_dense_attention(newer_core, steps):
    import harness
    import paroattention
    from comfy.ldm.modules.attention import attention_pytorch

    override = harness.part("override").Override()
    given = {"observe_steps": 1, "refresh": steps == "sampled", "refresh_every": 1}
    session = paroattention.Session(paroattention.Settings(**given), [1.0, 0.5, 0.0])
    run, options = _run(harness, session)

    def dense():
        q, k, v = _tensors()
        attention_pytorch(q, k, v, HEADS)

    def ours():
        given = [newer_core.Container(x) for x in _tensors()]
        override.container_function(*given, HEADS, transformer_options=options())

    for function in (dense, ours, ours):  # loads kernels, watches, plans
        function()
    run.next_step()
    ours()  # the plan goes to the device
    held, let_go = _peak(dense), _peak(ours)
    assert session.report.paths["sparse"] >= 1
    print(f"\n{steps}: {let_go / 2**20:.0f} MiB, dense {held / 2**20:.0f} MiB")
    assert let_go <= 0.9 * held


def _run(harness, session):
    """What the override finds in transformer_options: a run in its second step, and its options."""
    from types import SimpleNamespace

    module, layouts = harness.part("override"), harness.part("layouts")
    model = SimpleNamespace(patch_size=(1, 2, 2))
    frames, height, width = GRID
    latent = torch.zeros(1, 16, frames, 2 * height, 2 * width)
    inputs = layouts.Inputs(model, {"x": latent})
    evaluation = harness.part("evaluation").Evaluation

    class Run:
        sigma = 1.0
        layers = harness.part("layer_functions").LayerFunctions()
        refusal = staticmethod(lambda *args: None)

        def __init__(self):
            self.session = session

        def next_step(self):
            Run.sigma = 0.5

    run = Run()

    def options():
        forward = session.begin_forward(run.sigma)
        return {
            "block_type": "double",
            "block_index": 0,
            module.RUN: run,
            module.EVALUATION: evaluation(forward, "wan2.1", inputs),
        }

    return run, options
