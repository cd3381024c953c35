"""The run log: one JSON object a line, appended, kept small."""

import json

import pytest
from paroattention import runlog
from paroattention.runlog import RunLog


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_appended(tmp_path):
    path = tmp_path / "deep" / "er" / "runlog.jsonl"
    for run in range(2):
        log = RunLog(path)
        log.add(run=run, layer="double.0.0")
        log.add(run=run, text="größe\nline 2")
        log.flush()
    lines = read(path)
    assert [line["run"] for line in lines] == [0, 0, 1, 1]
    assert lines[1]["text"] == "größe\nline 2"


def test_nothing_is_written_before_flush_or_twice(tmp_path):
    log = RunLog(tmp_path / "runlog.jsonl")
    log.add(step=0)
    assert not log.path.exists()
    log.flush()
    log.flush()
    assert len(read(log.path)) == 1


def test_empty_flush_makes_no_file(tmp_path):
    RunLog(tmp_path / "a" / "runlog.jsonl").flush()
    assert not (tmp_path / "a").exists()


def test_without_a_path_nothing_is_kept():
    log = RunLog(None)
    log.add(step=0)
    log.flush()
    assert log.lines == []


def test_a_long_log_is_moved_aside_once(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "_MAX_BYTES", 100)
    path = tmp_path / "runlog.jsonl"
    for step in range(3):
        log = RunLog(path)
        log.add(step=step, text="x" * 200)
        log.flush()
    assert [line["step"] for line in read(path)] == [2]
    assert [line["step"] for line in read(tmp_path / "runlog.jsonl.1")] == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runlog.jsonl", "runlog.jsonl.1"]


def test_a_disk_that_refuses_is_the_callers_to_tell(tmp_path):
    (tmp_path / "file").write_text("")
    log = RunLog(tmp_path / "file" / "runlog.jsonl")
    log.add(step=0)
    with pytest.raises(OSError):
        log.flush()
