"""What `run.py test --coverage` makes of the tools' reports."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.setup import coverage
from tools.setup.suites import Suite

GOOD = {"native/core": 95, "paroattention": 90, "comfy_nodes": 93, "benchmarks": 12}


def told(monkeypatch, tmp_path, percent):
    """report() where the tools tell these shares of 200 lines."""

    def core(paths):
        return coverage.Share("native/core", (2 * percent["native/core"], 200), (1, 2))

    def python(paths, results):
        for part in ("paroattention", "comfy_nodes", "benchmarks"):
            yield coverage.Share(part, (2 * percent[part], 200), (3, 4))

    monkeypatch.setattr(coverage, "_core", core)
    monkeypatch.setattr(coverage, "_python", python)
    return coverage.report(None, tmp_path)


def test_shares_are_told_and_written(monkeypatch, tmp_path, capsys):
    assert told(monkeypatch, tmp_path, GOOD)
    lines = capsys.readouterr().out.splitlines()
    assert "  native/core: 95.0 % of 200 lines, 50.0 % of 2 branches" in lines
    assert json.loads((tmp_path / "coverage.json").read_text())["comfy_nodes"] == [186, 200, 3, 4]


@pytest.mark.parametrize("part", ["native/core", "paroattention", "comfy_nodes"])
def test_a_share_below_its_floor_fails(monkeypatch, tmp_path, capsys, part):
    assert not told(monkeypatch, tmp_path, GOOD | {part: 60})
    assert f"{part}: 60.0 % of 200 lines" in capsys.readouterr().out


def test_a_suite_is_started_by_what_measures(monkeypatch, tmp_path):
    monkeypatch.setattr(coverage, "sources", lambda paths: ["/a/paroattention", "/b/comfy_nodes"])
    suite = Suite("x", ["python", "-m", "pytest", "tests/x"], tmp_path / "r", tmp_path / "l", "")
    coverage.watch(None, suite)
    assert suite.command[:4] == ["python", "-m", "coverage", "run"]
    assert "--source=/a/paroattention,/b/comfy_nodes" in suite.command
    assert suite.command[-3:] == ["-m", "pytest", "tests/x"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("/a/venv/site-packages/paroattention/run/session.py", "paroattention"),
        ("/a/venv/site-packages/paroattention/__init__.py", "paroattention"),
        ("/a/venv/site-packages/paroattention/bench/gpu.py", "benchmarks"),
        ("comfy_nodes/layouts/wan.py", "comfy_nodes"),
    ],
)
def test_a_file_belongs_to_one_part(name, part):
    assert coverage._part(name) == part
