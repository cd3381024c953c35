"""run.py counts what ran, and takes neither a dead process nor an empty run for a pass."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import last_pass
import pytest

import run

GOOD = "def test_good():\n    pass\n"
SKIPPED = "import pytest\n\ndef test_other():\n    pytest.skip('one GPU')\n"
FAILED = "def test_bad():\n    assert 1 == 2\n"
DEAD = "import os, signal\n\ndef test_dead():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"


def _outcome(folder: Path, sources: dict[str, str], *arguments: str) -> dict:
    tests, junit = folder / "tests", folder / "junit.xml"
    tests.mkdir()
    for name, source in sources.items():
        (tests / f"test_{name}.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tests}"]
    command += [f"--junitxml={junit}", str(tests), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests)
    return run.outcome(done.returncode, done.stdout + done.stderr, junit, list(arguments))


def test_a_whole_run(tmp_path):
    found = _outcome(tmp_path, {"a": GOOD, "b": SKIPPED})
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 0, 1)
    assert found["whole"] and not found["died"]
    assert len(found["skip_reasons"]) == 1 and "one GPU" in next(iter(found["skip_reasons"]))


def test_a_failure_is_no_pass(tmp_path):
    found = _outcome(tmp_path, {"a": GOOD, "b": FAILED})
    assert (found["passed"], found["failed"]) == (1, 1)
    assert not found["whole"] and not found["died"]


def test_a_process_that_dies_is_named(tmp_path):
    found = _outcome(tmp_path, {"a": GOOD, "b": DEAD})
    assert not found["whole"]
    assert any("signal 11" in line for line in found["died"])


@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="no pytest-xdist")
def test_a_worker_that_dies_is_named(tmp_path):
    found = _outcome(tmp_path, {"a": GOOD, "b": DEAD}, "-n", "2")
    assert not found["whole"]
    assert any("crashed" in line or "node down" in line for line in found["died"])


def test_nothing_that_ran_is_no_pass(tmp_path):
    assert not _outcome(tmp_path, {})["whole"]


def test_a_selection_is_no_whole_pass(tmp_path):
    found = _outcome(tmp_path, {"a": GOOD, "b": FAILED}, "-k", "good")
    assert found["passed"] == 1 and not found["failed"]
    assert not found["whole"]


def _report(commit, *, whole, date="2026-11-29"):
    counts = {"passed": 7, "skipped": 1, "failed": 0 if whole else 3}
    return {
        **{"device": "GPU X", "date": date, "commit": commit, "torch": "2.11", "whole": whole},
        **{**counts, "sanitizer": {}, "measured": {}},
    }


def test_what_passed_whole_stays_until_something_newer_does(tmp_path):
    path = tmp_path / "gpu-x.json"
    run.keep(path, "own C++ runtime", _report("aaa", whole=True))
    run.keep(path, "shared C++ runtime", _report("bbb", whole=True, date="2026-11-30"))
    run.keep(path, "own C++ runtime", _report("ccc", whole=False, date="2026-12-01"))
    found = last_pass.passes(tmp_path)
    assert [(one["build"], one["commit"]) for one in found] == [
        ("shared C++ runtime", "bbb"),
        ("own C++ runtime", "aaa"),
    ]
    held = json.loads(path.read_text())["last_run"]
    assert held["own C++ runtime"]["commit"] == "ccc"
    run.keep(path, "own C++ runtime", _report("ddd", whole=True, date="2026-12-02"))
    assert last_pass.passes(tmp_path)[0]["commit"] == "ddd"


def test_the_head_says_commit_gpu_and_count(tmp_path):
    assert last_pass.lines(tmp_path) == ["No run of the GPU tests has passed whole yet."]
    run.keep(tmp_path / "gpu-x.json", "own C++ runtime", _report("aaa", whole=True))
    (line,) = last_pass.lines(tmp_path)
    assert line.startswith(
        "GPU tests last passed whole at aaa on 2026-11-29: 7 passed, 1 skipped on GPU X, own C++"
    )


def test_the_results_in_the_repository_can_be_read():
    assert last_pass.lines()
