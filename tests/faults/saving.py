"""Saves what a real run has learned, in a child process for each system call that breaks under it.

    saving.py BASE    (started by test_killed_saving.py, with syscalls.c loaded)

Each child gets the folders as they were and leaves what it made of them in BASE/CASE-ACTION-CALL.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from paroattention.run.saving import Saver
from syscalls import FAIL, KILL, Faults

sys.path.insert(0, str(Path(__file__).parents[1] / "comfy"))

import harness

BASE = Path(sys.argv[1])
WORK = BASE / "work"
# What the node would say; not among the files whose calls break.
TOLD = BASE / "told.json"
ACTIONS = {"kill": KILL, "fail": FAIL}


class Learned:
    """Runs of a model that save nothing: of each (run, profile, tensors) of its save is kept."""

    def __init__(self):
        harness.plugin()
        import folder_paths

        folder_paths.folder_names_and_paths["paro"] = ([str(WORK / "paro")], {".json"})
        folder_paths.output_directory = str(WORK / "output")
        self._model = harness.tiny_wan(layers=1)
        self._run = harness.part("run").Run
        self._save = self._run.save

    def one(self, seed: int) -> tuple:
        kept = []
        self._run.save = lambda *what: kept.append(what)
        harness.sample(harness.calibrate(self._model, exact=True), steps=2, seed=seed)
        self._run.save = self._save
        return kept[-1]


def finish(learned: tuple) -> None:
    """The end of a run, as far as it writes."""
    run, profile, tensors = learned
    Saver(run.save, run.session.note).store(profile, lambda: tensors, False)
    log = run.session.report.calls.runlog
    log.add(run=True, lines="x" * 20_000)
    log.add(end=True)
    try:
        log.flush()
    except OSError as error:
        run.session.note(f"the run log could not be written: {error}")
    TOLD.write_text(json.dumps(list(run.session.report.reasons.counts)), encoding="utf-8")


def in_a_child(work) -> int:
    """The status of a child process that does some work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def every_call(faults: Faults, case: str, before: Path | None, learned: tuple) -> dict:
    """Breaks each call in turn. {name of the folder: [status, name of the call that broke,
    what is told]}."""
    done = {}
    for name, action in ACTIONS.items():
        number = 0
        while True:
            number += 1
            shutil.rmtree(WORK, ignore_errors=True)
            if before is None:
                WORK.mkdir()
            else:
                shutil.copytree(before, WORK)
            TOLD.unlink(missing_ok=True)
            faults.arm(number, action)
            status = in_a_child(lambda: finish(learned))
            calls = faults.calls()
            faults.arm(0)
            reached = len(calls) >= number
            key = f"{case}-{name}-{number if reached else 'none'}"
            told = json.loads(TOLD.read_text(encoding="utf-8")) if TOLD.exists() else None
            done[key] = [status, calls[number - 1] if reached else "", told]
            shutil.copytree(WORK, BASE / key)
            if not reached:
                break
    return done


def main() -> None:
    faults, runs = Faults.here(), Learned()
    old, new = runs.one(1), runs.one(2)
    done = every_call(faults, "first", None, old)
    done |= every_call(faults, "again", BASE / "first-kill-none", new)
    (BASE / "done.json").write_text(json.dumps(done))


main()
