"""`bench comfy` end to end, with a model of two layers: every variant runs and is told truly."""

import json
import os
import subprocess
import sys

import pytest
from comfy_server import REPO


def bench(comfyui_dir, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "paroattention", "bench", "comfy", "--model", "tiny", *arguments],
        env={**os.environ, "COMFYUI_DIR": str(comfyui_dir)},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def rows(comfyui_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "comfy.json"
    densities = [word for density in ("0.3", "1.0") for word in ("--density", density)]
    done = bench(comfyui_dir, "--steps", "2", "--observe", "2", "--out", str(out), *densities)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())["rows"]


def test_dense_comes_first_and_ours_at_each_density(rows):
    assert [(row["name"], row["density_asked"]) for row in rows] == [
        ("dense", 1.0),
        ("paro-watching", 0.3),
        ("paro", 0.3),
        ("paro", 1.0),
    ]


def test_ours_ran_sparse_after_the_observed_steps(rows):
    # Two layers, and a call each for the positive and the negative text, unless batched.
    observing, same, profiled = rows[1:]
    paths = observing["paths"]
    assert set(paths) == {"observe", "sparse"} and observing["steps"] == 4
    assert paths["observe"] == paths["sparse"]
    assert same["observed"] == profiled["observed"] == 0
    assert set(same["paths"]) == set(profiled["paths"]) == {"sparse"}
    assert same["density_total"] == pytest.approx(observing["density_total"], rel=0.05)
    assert not observing["reasons"] and not profiled["reasons"]
    assert observing["density_total"] < 0.7 and profiled["density_total"] == 1.0


def test_masks_of_every_calls_own(comfyui_dir, tmp_path):
    out = tmp_path / "comfy.json"
    given = ("--mask", "dynamic", "--density", "0.3", "--steps", "1", "--observe", "1")
    done = bench(comfyui_dir, *given, "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    ours = json.loads(out.read_text())["rows"][1:]
    assert [row["mask"] for row in ours] == ["dynamic"] * 2
    assert [set(row["paths"]) for row in ours] == [{"observe", "sparse"}, {"sparse"}]
    assert all(row["density_total"] < 0.7 and not row["reasons"] for row in ours)


def test_a_calibration_with_exact_maps_and_a_run_with_them(comfyui_dir, tmp_path):
    """And one whose calls find their own masks."""
    out = tmp_path / "comfy.json"
    given = ("--mask", "static", "--mask", "dynamic", "--calibrate", "--density", "0.3")
    done = bench(comfyui_dir, *given, "--steps", "4", "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    *_, static, dynamic, calibrated, exact = json.loads(out.read_text())["rows"]
    assert [row["mask"] for row in (static, dynamic, exact)] == ["static", "dynamic", "static"]
    assert static["name"] == dynamic["name"] == "paro"
    assert (calibrated["name"], set(calibrated["paths"])) == ("calibrate-exact", {"observe"})
    assert calibrated["s_it"] == pytest.approx(calibrated["run_s"] / 4, abs=1e-3)
    assert calibrated["save_s"] > 0 and not calibrated["reasons"]
    assert (exact["name"], set(exact["paths"])) == ("paro-exact", {"sparse"})
    assert "exact maps" in exact["profile"] and not exact["reasons"]


def test_whole_runs_tell_both_promises(comfyui_dir, tmp_path):
    """What density ran, and how long the run took beside a dense one."""
    out = tmp_path / "comfy.json"
    given = ("--whole", "6", "--second", "--observe", "2", "--density", "0.4", "--dense-steps", "5")
    done = bench(comfyui_dir, *given, "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    dense, first, second = json.loads(out.read_text())["rows"]
    assert [row["name"] for row in (first, second)] == ["paro-watching-run", "paro-run"]
    for row in (first, second):
        assert row["steps"] == dense["steps"] == 6 and row["observed"] == 2
        assert row["density_asked"] == 0.4 and row["density"] == pytest.approx(0.4, rel=0.05)
        assert row["run_dense_is"] == "measured" and row["run_dense_s"] == dense["run_s"]
        assert row["run_speedup"] == pytest.approx(dense["run_s"] / row["run_s"], rel=1e-2)
    assert "2 steps of this run" in second["profile"]


def test_times_add_up(rows):
    for row in rows:
        assert 0 < row["attention_s_it"] < row["s_it"] <= row["run_s"]
    # Run and medians are rounded apart.
    assert rows[1]["run_20_steps_4_observed_s"] >= 16 * rows[1]["s_it"] - 0.01


def test_a_folder_that_is_no_comfyui(tmp_path):
    done = bench(tmp_path)
    assert done.returncode == 1
    assert "must name a ComfyUI folder" in done.stderr and str(tmp_path) in done.stderr
