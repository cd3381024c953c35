"""The processes that stress.py starts: workers, two that must agree, and the sanitizer's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stress_calls as calls
import stress_cases as cases
import torch
from stress_sections import Context
from stress_tally import Mismatch, Tally

SCRIPT = Path(__file__).with_name("stress.py")
TOOLS = ("memcheck", "initcheck", "synccheck")
# Small: under the sanitizer every access is looked at.
SANITIZED = cases.Sizes(tokens=500, text=150, heads=3, batch=2)
# So many times a worker begins anew.
ANEW = 5
# A worker's exit status where the device no longer answers, so that it has to begin anew.
BROKEN = 3


class Child:
    """A process of this script, whose output goes to a file."""

    def __init__(self, arguments: list[str], before: tuple[str, ...] = (), **env: str):
        self.log = tempfile.TemporaryFile("w+")
        command = [*before, sys.executable, str(SCRIPT), *arguments]
        environment = {**os.environ, **env}
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def finish(self, seconds: float) -> tuple[int, str]:
        """Exit status and output; ended if it takes longer."""
        try:
            code = self.process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.seek(0)
        return code, self.log.read()


def digest(context: Context, seed: int, count: int) -> str:
    """sha256 of the outputs of some cases."""
    found = hashlib.sha256()
    for number in range(count):
        one = calls.problem(context.draw(seed * 1000 + number), context.device.name)
        o = context.call(one).contiguous().cpu()
        found.update(o.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def processes_round(context: Context, seed: int, seconds: float, count: int = 12) -> list[str]:
    """Two processes at once, and this one beside them, must give the same bits."""
    arguments = ["--device", context.device.name, "--digest", f"{seed}:{count}"]
    pair = [Child(arguments), Child(arguments)]
    ours = digest(context, seed, count)
    found = []
    for number, child in enumerate(pair):
        code, text = child.finish(seconds)
        told = re.findall(r"^digest ([0-9a-f]{64})$", text, re.MULTILINE)
        if code != 0 or not told:
            found.append(f"process {number} must end with 0 (got {code}): {text[-800:]}")
        elif told[-1] != ours:
            found.append(f"process {number} gave other bits than this one")
        context.tally.repeats += count
    return found


def sample(device, seed: int, count: int) -> None:
    """Calls without a reference, for the sanitizer."""
    context, ran = Context(device, Tally()), 0
    for number in range(count):
        case = device.adapt(cases.draw(seed * 1000 + number, SANITIZED))
        context.call(calls.problem(case, device.name))
        ran += 1
    device.wait()
    print("calls ran:", ran)


def sanitizers(
    program: str, seed: int, count: int, race_package: str = ""
) -> dict[str, Child | None]:
    """A child for each tool; None where the program is not there.

    race_package: a copy of native/python whose library racecheck can follow, if there is one.
    """
    # The caching allocator would hide reads past an end.
    env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tools = {tool: env for tool in TOOLS}
    if race_package:
        tools["racecheck"] = {**env, "PARO_PACKAGE": race_package}
    arguments = ["--device", "cuda", "--sample", f"{seed}:{count}"]
    children: dict[str, Child | None] = {}
    for tool, given in tools.items():
        try:
            children[tool] = Child(arguments, (program, "--tool", tool), **given)
        except OSError:
            children[tool] = None
    return children


def verdict(child: Child | None, seconds: float) -> tuple[str, bool]:
    """What a sanitizer said, and whether it is clean."""
    if child is None:
        return "not run: compute-sanitizer was not found", False
    code, text = child.finish(seconds)
    told = re.findall(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+) ", text)
    ran = re.findall(r"calls ran: (\d+)", text)
    if code == 0 and told and ran and int(ran[-1]) > 0 and set(told) == {"0"}:
        return f"0 errors in {ran[-1]} calls", True
    return f"exit status {code}, errors {told}, calls {ran}: {text[-1500:]}", False


class Worker:
    """A process that runs random calls until it is told to stop, and begins anew if it dies."""

    def __init__(self, number: int, arguments: list[str], folder: Path):
        self.number, self.arguments = number, arguments
        self.file, self.at = folder / f"{number}.json", folder / f"{number}.seed"
        self.gone, self.dead, self.child = Tally(), 0, None

    def start(self, first: int, step: int, until: float) -> None:
        for path in (self.file, self.at):
            path.unlink(missing_ok=True)
        span = f"{first}:{step}:{until}:{self.file.with_suffix('')}"
        self.until, self.step = until, step
        self.child = Child([*self.arguments, "--worker", span])

    def watch(self, command: str) -> None:
        """Has a worker that ended too early begin after the seed at which it did."""
        if self.dead > ANEW or self.child.process.poll() in (None, 0) or time.time() > self.until:
            return
        seed = self._seed()
        code, text = self.child.finish(1)
        self.gone.add(self._tally())
        self.file.unlink(missing_ok=True)
        if code != BROKEN:
            what = [f"a worker ended with status {code}: {text[-800:]}"]
            self.gone.failed(Mismatch("random", seed, what, f"{command} --only random:{seed}"))
        self.dead += 1
        if self.dead <= ANEW:
            self.start(seed + self.step, self.step, self.until)

    def so_far(self) -> Tally:
        """What it has counted, some seconds ago at most."""
        tally = self._tally()
        tally.add(self.gone)
        return tally

    def result(self, seconds: float) -> Tally:
        """What it has counted in all, once it has ended."""
        code, text = self.child.finish(seconds)
        tally = self._tally()
        if code != 0 and self.dead <= ANEW:
            what = [f"worker {self.number} must end with 0 (got {code}): {text[-800:]}"]
            tally.failed(Mismatch("random", self._seed(), what, "the whole run"))
        tally.add(self.gone)
        return tally

    def _tally(self) -> Tally:
        return Tally.read(self.file) if self.file.exists() else Tally()

    def _seed(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self.at.read_text())
        return 0
