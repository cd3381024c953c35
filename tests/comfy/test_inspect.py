"""PAROInspect's picture, and an edit made in the viewer that changes the next run."""

import os
import subprocess
from pathlib import Path

import harness
import numpy as np
import paroattention
import pytest

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def saved(model, folders):
    """A calibrated profile whose heads all follow the node's density."""
    harness.sample(harness.calibrate(model, name="mine"))
    profile = folders.load("mine")
    layers = profile.layers
    for layer in layers:
        heads = layer.heads
        for head in heads:
            head.density = None
        layer.heads = heads
    profile.layers = layers
    profile.save(folders.profiles / "mine.json")
    return "mine"


def inspect(**inputs):
    node = harness.part("inspect_heads").PAROInspect
    given = {"layer": -1, "head": -1, "density": 0.3, "steps": "early"} | inputs
    return harness.run_node(node, **given)[0]


def test_the_picture_holds_each_head_before_and_after(saved, folders):
    every, one = inspect(profile=saved), inspect(profile=saved, layer=1, head=0)
    assert every.shape[0] == 1 and every.shape[-1] == 3
    assert 0 <= every.min() and every.max() <= 1
    assert every.shape[1] * every.shape[2] > 3 * one.shape[1] * one.shape[2]
    # The squares of one head are its maps, pixel for pixel.
    profile = folders.load(saved)
    views = paroattention.head_views(profile, 1, 0, 0, density=0.3)
    top = 16 + 18 + 2 * 18
    for i, mask in ((0, False), (1, True)):
        left = 16 + i * (240 + 8)
        square = (one[0, top : top + 240, left : left + 240].numpy() * 255).round()
        assert np.array_equal(square, views[i].picture(240, mask=mask))


def test_density_and_steps_change_the_picture(saved):
    first = inspect(profile=saved, layer=0, head=0, density=0.1)
    assert not np.array_equal(first, inspect(profile=saved, layer=0, head=0, density=0.9))
    assert not np.array_equal(
        first, inspect(profile=saved, layer=0, head=0, density=0.1, steps="late")
    )


@pytest.mark.parametrize("inputs", [{"layer": 2}, {"head": 2}, {"layer": -2}, {"head": 999}])
def test_heads_that_are_not_there(saved, inputs):
    with pytest.raises(paroattention.Error, match=r"from -1 \(all\)"):
        inspect(profile=saved, **inputs)


def test_names_are_checked_when_queued(saved):
    node = harness.part("inspect_heads").PAROInspect
    assert node.validate_inputs(profile=saved) is True
    for name in ("../mine", "/etc/passwd", "nothing", ""):
        assert node.validate_inputs(profile=name) is not True
    before = node.fingerprint_inputs(profile=saved)
    path = harness.part("store").find(saved)
    os.utime(path, ns=(1, 1))
    assert node.fingerprint_inputs(profile=saved) != before


def test_at_most_64_heads():
    class Model:
        layers, heads = 40, 40

    class Profile:
        model = Model

    chosen = harness.part("inspect_heads")._chosen(Profile, -1, -1)
    assert len(chosen) == len(set(chosen)) == 64
    assert {layer for layer, _ in chosen} == set(range(40))


def viewer_script(folder: Path, text: str) -> None:
    """Runs the viewer on a script, without a display."""
    program = os.environ.get("PARO_VIEWER", "")
    if not Path(program).is_file():
        if os.environ.get("PARO_REQUIRE_VIEWER"):
            pytest.fail("PARO_VIEWER must name the built viewer")
        pytest.skip("PARO_VIEWER names no viewer")
    script = folder / "edit.txt"
    script.write_text(text, encoding="utf-8")
    command = [program, "--headless", "--script", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_edit_in_the_viewer_changes_the_next_run(model, saved, folders, tmp_path):
    run = harness.paro(model, profile=saved, density=0.5, precision="bf16")
    before = harness.sample(run)
    layers = {line["layer"]: line["density"] for line in folders.runs()[-1][:-1]}
    path = folders.profiles / f"{saved}.json"
    viewer_script(
        tmp_path,
        f"""
open {path}
wait
click tile.1
wait
drag density.slider 0.5 0.5 1 0.5
expect head.density == 1
key ctrl+s
until modified == false
""",
    )
    assert folders.load(saved).layers[0].heads[1].density == 1
    # The same node, queued again: nothing of it was executed anew.
    after = harness.sample(run)
    # The density that was asked for stays, so the other heads pay for this one: those of the other
    # layer are all among them.
    assert folders.last()["density"] == pytest.approx(0.5, abs=0.1)
    now = {line["layer"]: line["density"] for line in folders.runs()[-1][:-1]}
    assert now["double.0.0"] > layers["double.0.0"]
    assert now["double.1.0"] < layers["double.1.0"]
    assert not np.array_equal(before, after)
