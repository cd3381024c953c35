"""The nodes on a real ComfyUI server: what a browser or a script sees."""

import json
import re

import comfy_server
import numpy as np
import pytest
from comfy_server import ServerError, small, workflow

PROMPT = "coffee left ball"


def graph(which, /, seed=1, steps=3, **node):
    built = small(workflow(which, sampler={"seed": seed}, **node), steps)
    built["4"]["inputs"]["prompt"] = PROMPT
    return built


def frames(server, built, save_as):
    built["7"]["inputs"]["save_as"] = save_as
    server.run(built)
    return np.load(server.base / "output" / "paro" / f"{save_as}.npy")


def last_run(server):
    return comfy_server.read_runlog(server.base)[-1]


@pytest.fixture(scope="module")
def dense(comfy_live):
    return frames(comfy_live, graph("demo_dense"), "dense")


def test_object_info_shows_the_public_inputs(comfy_live):
    info = comfy_live.get("/object_info/PAROAttention")["PAROAttention"]
    inputs = info["input"]["required"]
    defaults = {name: spec[1]["default"] for name, spec in inputs.items() if name != "model"}
    assert defaults == {
        "profile": "auto",
        "density": 0.3,
        "precision": "int8",
        "mask": "static",
        "tail": True,
        "start_percent": 0.0,
        "end_percent": 1.0,
        "observe_steps": 4,
        "save_as": "",
    }
    assert info["category"] == "PARO" and info["output"] == ["MODEL"]


def test_all_dense_through_the_node_is_bit_equal(comfy_live, dense):
    built = graph("demo_sparse", profile="none", observe_steps=3, dense_steps="model")
    assert np.array_equal(frames(comfy_live, built, "through"), dense)


def test_sparse_run_is_logged_and_close(comfy_live, dense):
    built = graph("demo_sparse", profile="none", observe_steps=1, density=0.5, save_as="here")
    sparse = frames(comfy_live, built, "sparse")
    assert np.isfinite(sparse).all() and not np.array_equal(sparse, dense)
    lines = last_run(comfy_live)
    paths = [{line["path"] for line in lines if line.get("step") == step} for step in range(3)]
    assert paths == [{"observe"}, {"sparse"}, {"sparse"}]
    end = lines[-1]
    # The bundled model has 8 layers of 2 heads; 352 tokens are 6 x 6 tiles.
    # Heads that look everywhere stay dense, and the others pay for them.
    assert end["end"] and 0.48 < end["density"] < 0.52
    assert end["paths"] == {"observe": 8, "sparse": 16}
    saved = json.loads((comfy_live.base / "models" / "paro" / "here.json").read_text())
    assert saved["schema"] == "paroattention/1" and len(saved["layers"]) == 8


def test_new_seed_with_a_cached_node_is_a_new_run(comfy_live):
    before = len(comfy_server.read_runlog(comfy_live.base))
    for seed in (11, 12):
        comfy_live.run(graph("demo_sparse", seed, profile="none", observe_steps=1))
    runs = comfy_server.read_runlog(comfy_live.base)[before:]
    assert len(runs) == 2
    # The second one observes for itself: nothing of the first is left in the cached node.
    assert [run[-1]["paths"] for run in runs] == [{"observe": 8, "sparse": 16}] * 2


def test_base_model_is_unchanged_afterwards(comfy_live, dense):
    again = graph("demo_dense")
    again["6"]["inputs"]["steps"] = 2
    comfy_live.run(again)  # or ComfyUI would answer from its cache
    assert np.array_equal(frames(comfy_live, graph("demo_dense"), "again"), dense)


def test_compare_workflow_tells_the_distance(comfy_live):
    built = graph("demo_compare", profile="none", observe_steps=1, density=0.5)
    built["8"]["inputs"] |= {"seed": 1, "steps": 3}
    outputs = comfy_live.run(built).outputs
    text = " ".join(outputs["10"]["text"])
    assert re.search(r"PSNR \d+\.\d+ dB, SSIM 0\.\d+, flicker \d", text)
    assert len(outputs["11"]["images"]) == 4


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"density": 0.01}, "density"),
        ({"density": 1.5}, "density"),
        ({"precision": "int4"}, "int4"),
        ({"precision": "fp64"}, "precision"),
        ({"mask": "adaptive"}, "mask"),
        ({"profile": "no-such-profile"}, "no-such-profile"),
        ({"profile": "../../etc/passwd"}, "profile"),
        ({"save_as": "../up"}, "save_as"),
        ({"start_percent": -0.1}, "start_percent"),
        ({"observe_steps": -1}, "observe_steps"),
    ],
    ids=lambda value: next(iter(value.items())) if isinstance(value, dict) else None,
)
def test_bad_values_are_refused_by_name(comfy_live, node, named):
    before = len(comfy_server.read_runlog(comfy_live.base))
    with pytest.raises(ServerError, match="PAROAttention") as caught:
        comfy_live.run(graph("demo_sparse", **node))
    assert named in str(caught.value)
    assert len(comfy_server.read_runlog(comfy_live.base)) == before


def test_calibrate_then_use_the_profile(comfy_live):
    comfy_live.run(graph("demo_calibrate", name="mine", every_n_steps=1))
    folder = comfy_live.base / "models" / "paro"
    assert (folder / "mine.json").is_file() and (folder / "mine.capture.safetensors").is_file()
    comfy_live.run(graph("demo_sparse", 5, profile="mine", precision="bf16", watch="if needed"))
    end = last_run(comfy_live)[-1]
    assert end["paths"] == {"sparse": 24} and end["profile"].startswith("mine")
    assert end["precision"] == "fp32"  # what bf16 means on a CPU
