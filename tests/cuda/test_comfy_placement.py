"""Runs in the real ComfyUI wherever it puts the model: weights in host memory, another GPU.

Needs COMFYUI_DIR. Each run is a process of its own, since ComfyUI reads its arguments once.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
LAYERS, SPARSE_STEPS = 2, 6

pytestmark = [
    pytest.mark.skipif(not os.environ.get("COMFYUI_DIR"), reason="no COMFYUI_DIR"),
    # Under pytest-xdist (--dist loadgroup) one worker makes each run once.
    pytest.mark.xdist_group("placement"),
]


@functools.cache
def run(place: str, folder: Path) -> dict:
    out = folder / f"{place}.pt"
    done = subprocess.run(
        [sys.executable, str(HERE / "comfy_run.py"), place, str(out)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("placement")


second = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")


@pytest.mark.parametrize("place", ["lowvram", "novram", pytest.param("gpu1", marks=second)])
def test_a_run_is_the_same_wherever_the_model_lies(folder, place):
    normal, found = run("normal", folder), run(place, folder)
    assert found["paths"]["sparse"] >= LAYERS * SPARSE_STEPS and not found["reasons"]
    assert found["paths"] == normal["paths"]
    assert found["devices"] == ["cuda:1" if place == "gpu1" else "cuda:0"]
    if place == "novram":
        assert found["loaded"] < 0.5 * found["whole"]
    assert torch.isfinite(found["latent"]).all()
    assert torch.equal(found["latent"], normal["latent"])


@pytest.mark.parametrize("place", ["normal", "novram", pytest.param("gpu1", marks=second)])
def test_nothing_is_left_on_the_gpu(folder, place):
    found = run(place, folder)
    # Plans were read from the store, and the end of the run gave its buffers back.
    assert found["reads"] >= 2 * LAYERS * SPARSE_STEPS and found["plan_bytes"] == 0
    # More than a first run left, which made libraries' workspaces.
    assert found["left_bytes"] <= 0
