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


# -- what is left of others ------------------------------------------------------------------------


def test_a_line_follows_half_a_line_on_one_of_its_own(tmp_path):
    path = tmp_path / "runlog.jsonl"
    path.write_bytes(b'{"run": true}\n{"step": 1, "la')
    log = RunLog(path)
    log.add(step=2)
    log.flush()
    assert path.read_bytes() == b'{"run": true}\n{"step": 1, "la\n{"step": 2}\n'


class Disk:
    """A file whose disk takes `room` bytes more; meanwhile another process may write."""

    def __init__(self, file, room, meanwhile=None):
        self._file, self._room, self._meanwhile = file, room, meanwhile

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if self._room == 0:
            if self._meanwhile is not None:
                self._meanwhile()
            raise OSError(28, "No space left on device")
        part = data[: self._room]
        self._room -= len(part)
        return self._file.write(part)


@pytest.mark.parametrize("room", [0, 1, 30])
def test_nothing_of_a_run_stays_on_a_disk_that_is_full(tmp_path, room):
    path = tmp_path / "runlog.jsonl"
    path.write_bytes(b'{"run": 1}\n')
    with open(path, "a+b", buffering=0) as file, pytest.raises(OSError, match="No space"):
        runlog._append(Disk(file, room), b'{"run": 2, "text": "xxxxxxxxxxxxxxxxxx"}\n')
    assert path.read_bytes() == b'{"run": 1}\n'


def test_what_another_process_has_written_stays(tmp_path):
    path = tmp_path / "runlog.jsonl"

    def other():
        with open(path, "ab") as file:
            file.write(b"theirs")

    with open(path, "a+b", buffering=0) as file, pytest.raises(OSError, match="No space"):
        runlog._append(Disk(file, 4, other), b'{"run": 2}\n')
    assert path.read_bytes() == b'{"rutheirs'


def test_a_runs_lines_are_one_call_of_the_system(tmp_path, monkeypatch):
    """Of two processes that append at once neither comes between the other's lines."""
    writes = []

    class Watched(Disk):
        def write(self, data):
            writes.append(len(data))
            return self._file.write(data)

    append = runlog._append
    monkeypatch.setattr(runlog, "_append", lambda file, text: append(Watched(file, 0), text))
    log = RunLog(tmp_path / "runlog.jsonl")
    for step in range(2000):
        log.add(step=step, text="x" * 100)
    log.flush()
    assert writes == [log.path.stat().st_size] and writes[0] > 100_000
