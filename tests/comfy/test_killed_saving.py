"""A process that is killed, or whose disk is full, at every system call of a save.

tests/faults/saving.py makes the save in a child process for each call: a profile with its capture,
and the run log. The first time nothing is there, the second time it is written over.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import comfy_server
import harness
import pytest
from syscalls import KILL, Faults, build

SAVING = Path(__file__).parents[1] / "faults" / "saving.py"
NAMES = "mine.json", "mine.capture.safetensors"
PROFILE, CAPTURE = (f"paro/{name}" for name in NAMES)
LOG = "output/paro/runlog.jsonl"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """{what was done: (exit status, the call that broke, what is told, the folder left)}."""
    base = tmp_path_factory.mktemp("saving")
    faults = Faults(build(base), base / "control", base / "work")
    environment = os.environ | faults.environment | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, SAVING, base], env=environment, check=True, timeout=300)
    done = json.loads((base / "done.json").read_text())
    return {name: (*what, base / name) for name, what in done.items()}


def broken(states, action: str):
    """(case, exit status, call, folder) of all states after that action."""
    for name, (status, call, _, folder) in states.items():
        case, done, number = name.split("-")
        if done == action and number != "none":
            yield case, status, call, folder


def content(folder: Path, name: str) -> bytes | None:
    path = folder / name
    return path.read_bytes() if path.exists() else None


def test_every_call_of_a_save_was_broken(states):
    for action in ("kill", "fail"):
        for case in ("first", "again"):
            calls = [call for one, _, call, _ in broken(states, action) if one == case]
            # Of the profile and of its capture: opened, written, flushed, closed, renamed.
            assert calls.count("rename") == 2 and calls.count("fsync") == 4, calls
            assert calls.count("write") >= 8 and calls.count("open") == 3
    assert {status for _, status, _, _ in broken(states, "kill")} == {-signal.SIGKILL}
    # An error of the disk ends nothing.
    assert {status for _, status, _, _ in broken(states, "fail")} == {0}


@pytest.mark.parametrize("action", ["kill", "fail"])
def test_what_is_there_is_the_old_or_the_new_one_and_whole(states, action):
    import paroattention

    both = {case: states[f"{case}-{action}-none"][-1] for case in ("first", "again")}
    old = {"first": {PROFILE: None, CAPTURE: None}, "again": {}}
    old["again"] = {name: content(both["first"], name) for name in (PROFILE, CAPTURE)}
    seen = set()
    for case, _, call, folder in broken(states, action):
        for name in (PROFILE, CAPTURE):
            found, new = content(folder, name), content(both[case], name)
            assert new is not None and found in (old[case][name], new), (folder.name, call)
            seen.add((case, name, found == new))
        if content(folder, PROFILE):
            paroattention.Profile.load(folder / PROFILE)
        if content(folder, CAPTURE):
            paroattention.load_capture(folder / CAPTURE)
    assert len(seen) == 8  # both of each: otherwise the calls were broken too early or too late


@pytest.mark.parametrize("action", ["kill", "fail"])
def test_nothing_unfinished_is_offered_or_stays(states, monkeypatch, action):
    import folder_paths

    store, leftovers = harness.part("store"), harness.part("leftovers")
    for _, _, call, folder in broken(states, action):
        profiles = folder / "paro"
        if not profiles.is_dir():
            continue
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, "paro", ([str(profiles)], {".json"})
        )
        offered = {path.name for path in (profiles / "mine.json",) if path.exists()}
        assert {f"{name}.json" for name in store.names()} >= offered
        rest = {path.name for path in profiles.iterdir()} - {*NAMES}
        assert all(name.startswith(".paro-") and name.endswith(".tmp") for name in rest), rest
        # A full disk leaves nothing; a process that is killed cannot clear up.
        assert len(rest) <= (action == "kill"), (folder.name, call)
        leftovers.remove(profiles)
        assert len(list(profiles.glob(".paro-*"))) == len(rest)  # it may be another server's
        for name in rest:
            os.utime(profiles / name, (time.time() - leftovers.AGE - 60,) * 2)
        leftovers.remove(profiles)
        assert not list(profiles.glob(".paro-*"))


def lines_of(folder: Path) -> list[bytes]:
    return (content(folder, LOG) or b"").split(b"\n")


def test_a_full_disk_costs_a_runs_lines_whole(states):
    """No half line stays, and those of earlier runs do."""
    for case, _, _, folder in broken(states, "fail"):
        *lines, last = lines_of(folder)
        assert last == b"" and len(lines) in ((0, 2) if case == "first" else (2, 4))
        assert all(json.loads(line) for line in lines)


def test_a_full_disk_is_told(states):
    """What was lost, and nothing else: the profile, its capture, the run's lines."""
    seen = set()
    for name, (_, call, told, folder) in states.items():
        case, action, number = name.split("-")
        if action != "fail":
            continue
        whole = states[f"{case}-fail-none"][-1]
        profile, capture, log = (
            content(folder, one) == content(whole, one) for one in (PROFILE, CAPTURE, LOG)
        )
        wanted = []
        if not profile:
            wanted.append("the profile could not be saved: ")
        elif not capture:
            wanted.append("profile mine is saved, but not the rows that the viewer shows: ")
        # The very last call closes the log: the disk may say then that it kept nothing.
        closed = number != "none" and f"{case}-fail-{int(number) + 1}" not in states
        if not log or closed:
            wanted.append("the run log could not be written: ")
        assert len(told) == len(wanted), (name, call, told)
        assert all(one.startswith(start) for one, start in zip(told, wanted, strict=True)), told
        assert all("No space left on device" in one for one in told)
        seen.add(tuple(wanted))
    assert len(seen) == 4, seen


def test_lines_after_half_a_line_are_lines_of_their_own(states):
    """A run log whose last writer was killed."""
    import shutil

    from paroattention.runlog import RunLog

    torn = 0
    for case, _, call, folder in broken(states, "kill"):
        before = lines_of(folder)
        torn += before[-1] != b""
        log = RunLog(folder.with_name(folder.name + "-copy") / "runlog.jsonl")
        log.path.parent.mkdir()
        if content(folder, LOG) is not None:
            shutil.copy(folder / LOG, log.path)
        log.add(run=True)
        log.flush()
        *lines, last = log.path.read_bytes().split(b"\n")
        assert last == b"" and json.loads(lines[-1]) == {"run": True}, (case, call)
    assert torn == 2


# -- a server --------------------------------------------------------------------------------------


# The calls up to the one that gives a profile its name.
SAVE = ["mkdir", "open", "write", "fsync", "close", "rename"]


def test_a_server_that_is_killed_while_it_saves(comfyui_dir, tmp_path, monkeypatch):
    """Killed for real as the profile gets its name, then started again on what it left."""
    base = comfy_server.make_base(tmp_path / "base")
    profiles = base / "models" / "paro"
    profiles.mkdir(parents=True)
    faults = Faults(build(tmp_path), tmp_path / "control", profiles)
    graph = comfy_server.small(comfy_server.workflow("demo_sparse", observe_steps=1))
    with monkeypatch.context() as patch:
        for name, value in faults.environment.items():
            patch.setenv(name, value)
        with comfy_server.ComfyServer(comfyui_dir, base, tmp_path / "log") as server:
            faults.arm(len(SAVE), KILL)
            with pytest.raises((comfy_server.ServerError, OSError)):
                server.run(graph)
    assert faults.calls() == SAVE
    (left,) = profiles.iterdir()
    assert left.name.startswith(".paro-")
    os.utime(left, (0, 0))
    with comfy_server.ComfyServer(comfyui_dir, base, tmp_path / "log") as server:
        server.run(graph)
    end = comfy_server.read_runlog(base)[-1][-1]
    assert end["ok"] and not end["reasons"] and end["paths"] == {"observe": 8, "sparse": 16}
    names = [path.name for path in profiles.iterdir()]
    assert len(names) == 2 and not any(name.startswith(".") for name in names)
