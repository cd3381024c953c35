"""run.py fuzz: its targets, what it reads of libFuzzer's log, what it says without Clang."""

import json
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tools.setup import fuzz, system  # noqa: E402
from tools.setup.paths import Paths  # noqa: E402
from tools.setup.steps import SetupError  # noqa: E402

LOG = """INFO: seed corpus: files: 7
#8\tINITED cov: 812 ft: 1490 corp: 5/2914b exec/s: 0 rss: 40Mb
#2048\tpulse  cov: 1754 ft: 3009 corp: 182/40Kb lim: 126 exec/s: 1024 rss: 61Mb
stat::number_of_executed_units: 38997
stat::average_exec_per_sec:     4333
stat::peak_rss_mb:              67
"""


def test_each_target_has_a_corpus_and_a_line_in_the_readme():
    readme = (fuzz.FOLDER / "README.md").read_text(encoding="utf-8")
    for name in fuzz.targets():
        assert any((fuzz.FOLDER / "corpus" / name).iterdir()), name
        assert f"| `{name}` |" in readme
    assert len(fuzz.targets()) >= 11
    known = {path.name for path in (fuzz.FOLDER / "corpus").iterdir()}
    assert known == set(fuzz.targets())


def test_the_corpus_stays_small():
    files = [path for path in (fuzz.FOLDER / "corpus").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100_000


def test_an_unknown_target_is_named_with_those_that_are():
    with pytest.raises(SetupError, match=r"--target must be one of .*, races \(got nothing\)"):
        fuzz.run(Paths(), ["nothing"], 1, 1, None, "")


def test_the_counts_are_read_from_the_log():
    outcome = fuzz.read_log("profile", LOG)
    assert (outcome.executions, outcome.edges, outcome.corpus, outcome.memory_mb) == (
        38997, 1754, 182, 67,
    )  # fmt: skip


def test_the_long_run_is_the_sum_of_its_runs():
    told = json.loads((fuzz.FOLDER / "results" / "long.json").read_text(encoding="utf-8"))
    assert {*told["targets"]} == {*fuzz.targets()}
    for parts in (told["runs"], told["targets"].values()):
        assert sum(one["executions"] for one in parts) == told["executions"]
    # The README tells the same sum.
    readme = (fuzz.FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"**{told['executions']:,} executions" in readme


def test_results_of_several_runs_add_up(tmp_path):
    out = tmp_path / "results" / "long.json"
    one = fuzz.Outcome("profile", 100, 2.0, 50, 7, 60, [])
    first, second = ({"command": "the command", "commit": commit} for commit in "ab")
    fuzz.add_up(out, [one], first)
    fuzz.add_up(out, [fuzz.Outcome("codes", 5, 1.0, 9, 2, 50, [])], first)
    fuzz.add_up(out, [fuzz.Outcome("profile", 11, 1.0, 52, 8, 50, ["x"])], second)
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["executions"] == 116
    assert told["runs"] == [{**first, "executions": 105}, {**second, "executions": 11}]
    assert told["targets"]["profile"] == {
        "executions": 111, "seconds": 3.0, "edges": 52, "corpus": 8, "memory_mb": 60, "found": 1,
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="fuzzing is for Linux")
def test_without_clang_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(fuzz, "find_clang", lambda: None)
    monkeypatch.setattr(system, "is_root", lambda: False)
    with pytest.raises(SetupError) as error:
        fuzz.ensure_system(Paths())
    assert "Fuzzing needs Clang with its sanitizers" in str(error.value)
    assert "clang" in error.value.todo
