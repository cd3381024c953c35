"""The built viewer, a small profile with a capture, and scripts run on them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from paroattention import _core
from paroattention.layout import TokenLayout
from paroattention.learn.observer import Observer
from paroattention.plan.profile_build import build_profile
from paroattention.settings import ModelInfo, Settings

GRID = (4, 8, 10)
FINGERPRINT = "ab" * 32


@pytest.fixture(scope="session")
def viewer() -> Path:
    """paro-viewer, named by PARO_VIEWER."""
    path = os.environ.get("PARO_VIEWER", "")
    if not Path(path).is_file():
        if os.environ.get("PARO_REQUIRE_VIEWER"):
            pytest.fail(f"PARO_VIEWER must name the built viewer (got {path!r})")
        pytest.skip("PARO_VIEWER names no viewer")
    return Path(path)


LAYERS = ("double.0.0", "double.1.0", "double.2.0")


def make_profile(
    folder: Path,
    name: str = "wan",
    seed: int = 0,
    layers: tuple[str, ...] = LAYERS,
    heads: int = 2,
    family: str = "wan2.1",
) -> Path:
    """NAME.json and NAME.capture.safetensors, on random queries; the first layer has rows."""
    generator = torch.Generator().manual_seed(seed)
    observer = Observer(64, seed, keep_rows=True)
    layout = TokenLayout(GRID)
    tokens = layout.grid_size
    for layer in layers:
        # Keys near a query resemble it, so that maps have structure.
        drift = torch.randn(1, heads, tokens, 64, generator=generator).cumsum(2) / 4
        q = drift + torch.randn(1, heads, tokens, 64, generator=generator) / 2
        observer.observe(layer, q, drift, layout, sm_scale=0.05)
    model = ModelInfo(family, FINGERPRINT, "")
    profile = build_profile(observer, model, Settings(), [(1.0, 0.0)], steps=4, sampler="euler")
    path = folder / f"{name}.json"
    profile.save(path)
    tensors = {}
    head = min(1, heads - 1)
    queries, rows = observer.layers[layers[0]].newest[(0, head)]
    tensors[f"queries/{layers[0]}/{head}/0"] = queries.astype(np.int32)
    tensors[f"rows/{layers[0]}/{head}/0"] = rows
    _core.save_capture(folder / f"{name}.capture.safetensors", profile, tensors)
    return path


@pytest.fixture
def profile(tmp_path) -> Path:
    return make_profile(tmp_path)


@pytest.fixture
def run(viewer, tmp_path):
    """run(script, *arguments): the finished process; scripts must pass unless fails=True."""

    def start(script: str, *arguments, headless=True, fails=False, env=None, display=None):
        path = tmp_path / "script.txt"
        path.write_text(script, encoding="utf-8")
        command = [str(viewer), "--script", str(path), "--size", "1280x720", *map(str, arguments)]
        if headless:
            command.append("--headless")
        environment = {**os.environ, "PARO_CONFIG_DIR": str(tmp_path / "config"), **(env or {})}
        if display is not None:
            environment["DISPLAY"] = display
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, timeout=240, env=environment
        )
        assert not list(here.iterdir()), "the viewer left files where it was started"
        assert "imgui-error" not in done.stdout + done.stderr
        if fails:
            assert done.returncode == 1, done.stdout + done.stderr
        else:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    return start
