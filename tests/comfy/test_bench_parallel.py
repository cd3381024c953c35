"""`bench comfy-parallel`: the real ComfyUI's Wan on two processes samples what it does on one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from comfy_server import REPO


@pytest.fixture(scope="module")
def found(comfyui_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    given = ["--model", "tiny", "--device", "cpu", "--density", "0.3", "--steps", "5"]
    given += ["--out", str(folder / "rows.json"), "--latents", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "paroattention", "bench", "comfy-parallel", *given],
        env={**os.environ, "COMFYUI_DIR": str(comfyui_dir)},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    latents = {path.stem: torch.load(path) for path in folder.glob("*.pt")}
    return json.loads((folder / "rows.json").read_text())["rows"], latents


def test_two_processes_sample_what_one_does(found):
    """A linear layer over half of the tokens rounds in another way; nothing else may differ. Masks
    that are made of such samples may then be others: less is asked of sparse runs."""
    _, latents = found
    for name, limit in (("None", 1e-5), ("0.3", 1e-2)):
        one, two = latents[f"1-{name}"], latents[f"2-{name}"]
        assert torch.isfinite(one).all()
        assert float((one - two).norm() / one.norm()) < limit, name
    assert not torch.equal(latents["1-None"], latents["1-0.3"])


def test_both_watch_and_go_sparse(found):
    rows, _ = found
    assert [(row["gpus"], row["name"]) for row in rows] == [
        (1, "dense"),
        (1, "paro"),
        (2, "dense"),
        (2, "paro"),
    ]
    one, two = rows[1], rows[3]
    assert one["paths"] == two["paths"] == {"observe": 4, "sparse": 6}
    assert two["density"] == pytest.approx(one["density"]) and not two["reasons"]
    assert rows[2]["all_to_all_s"] > 0 and two["told_s"] > 0
