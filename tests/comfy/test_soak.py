"""Two hundred runs in one server: settings, interrupts and models at random.

Nothing may grow, break or stay behind.
"""

import platform
import random
import shutil
import statistics
from pathlib import Path

import comfy_server
import numpy as np
import pytest
from comfy_server import ServerError, small, workflow

RUNS, WARM = 200, 100
PROBE = Path(__file__).parent / "probe" / "memory_probe.py"
PROMPTS = ["coffee left ball", "astronaut right cup", ""]


def second_model(base):
    """The bundled model with other norms: another model of the same sizes."""
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(comfy_server.MODEL)
    draw = torch.Generator().manual_seed(0)
    for name, weight in state.items():
        if "norm_" in name:
            state[name] = weight * (1 + 0.2 * torch.randn(weight.shape, generator=draw))
    save_file(state, base / "models" / "diffusion_models" / "other.safetensors")


def memory(server):
    """{in_use, resident} of the server in MB, without ComfyUI's own list of past prompts."""
    server.post("/history", {"clear": True})
    return server.get("/probe/memory")


def median(held, name):
    return statistics.median(entry[name] for entry in held)


def graph(draw, seed):
    """A random small run: dense, sparse or calibrating, of one of two models."""
    kind = draw.choice(["demo_sparse"] * 6 + ["demo_calibrate", "demo_dense"])
    built = small(workflow(kind, sampler={"seed": seed}), draw.choice([2, 3]))
    built["1"]["inputs"]["unet_name"] = draw.choice([comfy_server.MODEL.name, "other.safetensors"])
    built["4"]["inputs"]["prompt"] = draw.choice(PROMPTS)
    if draw.random() < 0.3:  # Another grid, now and then.
        built["5"]["inputs"]["width"] = 208
    if kind == "demo_calibrate":
        built["3"]["inputs"] |= {"name": draw.choice(["one", "two"]), "every_n_steps": 1}
    if kind == "demo_sparse":
        start = draw.choice([0.0, 0.0, 0.4])
        built["3"]["inputs"] |= {
            "profile": draw.choice(["auto", "none", "auto"]),
            "density": draw.choice([0.05, 0.3, 0.5, 1.0]),
            "precision": draw.choice(["int8", "bf16"]),
            "mask": draw.choice(["static", "static", "dynamic"]),
            "tail": draw.random() < 0.5,
            "start_percent": start,
            "end_percent": draw.choice([start, 0.8, 1.0]),
            "observe_steps": draw.choice([0, 1, 2]),
            "save_as": draw.choice(["", "", "three"]),
        }
    built["7"]["inputs"]["save_as"] = "soak"
    return built


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs mallinfo2 of glibc")
def test_200_runs(comfyui_dir, tmp_path):
    draw = random.Random(7)
    base = comfy_server.make_base(tmp_path / "base")
    second_model(base)
    shutil.copy(PROBE, base / "custom_nodes")
    with comfy_server.ComfyServer(comfyui_dir, base, tmp_path / "log") as server:

        def frames(built):
            built["7"]["inputs"]["save_as"] = "frames"
            server.run(built)
            return np.load(base / "output" / "paro" / "frames.npy")

        dense = small(workflow("demo_dense", sampler={"seed": 5}))
        dense["4"]["inputs"]["prompt"] = PROMPTS[0]
        first = frames(dense)
        held, interrupted = [], 0
        for run in range(RUNS):
            at = draw.choice([0, 1, 2]) if draw.random() < 0.15 else None

            def event(kind, data, at=at):
                if kind == "progress" and at is not None and data["value"] >= at:
                    server.post("/interrupt", {})

            try:
                server.run(graph(draw, 1000 + run), event)
            except ServerError as error:
                assert "interrupted" in str(error), error
                interrupted += 1
            held.append(memory(server))
        dense["6"]["inputs"]["seed"] = 6
        frames(dense)  # or ComfyUI would answer the next one from its cache
        dense["6"]["inputs"]["seed"] = 5
        assert np.array_equal(frames(dense), first)
        log = (tmp_path / "log").read_text(errors="replace")
    assert interrupted >= 5
    # No traceback passes through a file of ours.
    assert "custom_nodes/comfyui-paroattention/comfy_nodes" not in log
    runs = comfy_server.read_runlog(base)
    assert len(runs) > RUNS / 2 and all(run[-1].get("end") for run in runs)
    for name in ("in_use", "resident"):
        before, after = median(held[WARM - 20 : WARM], name), median(held[-20:], name)
        print(f"{name}: {before:.1f} MB after {WARM} runs, {after:.1f} MB after {RUNS}")
        assert after <= before * 1.01, name
