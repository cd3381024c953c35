"""The suites of `run.py test`: side by side where that is safe, each with a log and a report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from . import native
from .paths import REPO, Paths
from .steps import HEARTBEAT_SECONDS, end_process, say

SLOWEST = 10


@dataclass
class Suite:
    """One runner: its command, and once it has ended its exit code and the counts of its report.

    closing: a pattern of the line that the runner ends with.
    """

    name: str
    command: list[str]
    report: Path
    log: Path
    closing: str
    code: int = -1
    wall_seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    times: list[tuple[float, str]] = field(default_factory=list)
    last_line: str = ""

    def read(self, code: int, wall_seconds: float) -> None:
        """What came of it."""
        self.code, self.wall_seconds = code, wall_seconds
        text = self.text()
        found = [line for line in text.splitlines() if re.search(self.closing, line)]
        self.last_line = found[-1] if found else ""
        if self.report.is_file():
            self._count(ElementTree.parse(self.report).getroot())
        if self.passed + self.failed + len(self.skipped) == 0:
            self.code = self.code or 5  # nothing ran

    def text(self) -> str:
        if not self.log.is_file():
            return ""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _count(self, root: ElementTree.Element) -> None:
        for case in root.iter("testcase"):
            name = case.get("name") or "unnamed"
            module = (case.get("classname") or "").split(".")[-1]
            self.times.append((float(case.get("time") or 0), f"{module}: {name}"))
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                self.skipped.append(name)
            else:
                self.passed += 1

    @property
    def ok(self) -> bool:
        return self.code == 0 and self.failed == 0


def ctest(paths: Paths, results: Path) -> Suite:
    folder = native.ensure_tests(paths)
    program = shutil.which("ctest", path=str(paths.scripts)) or "ctest"
    report = results / "ctest.xml"
    command = [program, "--test-dir", str(folder), "--output-on-failure", "-C", "Release"]
    command += ["--no-tests=error", "-j", str(os.cpu_count() or 1), "--output-junit", str(report)]
    closing = r"tests passed|tests failed"
    return Suite("C++ (ctest)", command, report, results / "ctest.log", closing)


def pytest(paths: Paths, name: str, results: Path, quick: bool, *words: str) -> Suite:
    """The tests of a folder, or one file of it. words: further ones of pytest's."""
    stem = name.replace("/", "-").removesuffix(".py")
    report = results / f"{stem}.xml"
    command = [str(paths.python), "-m", "pytest", str(Path("tests") / name), *words]
    # A cache of its own: suites run side by side.
    command += [f"--junitxml={report}", "-o", f"cache_dir={paths.cache / 'pytest' / stem}"]
    if quick:
        command += ["-m", "not slow"]
    closing = r"\d+ (passed|failed|error|skipped)|no tests ran"
    return Suite(f"tests/{name} (pytest)", command, report, results / f"{stem}.log", closing)


def run_lanes(lanes: list[list[Suite]], env: dict[str, str]) -> None:
    """Runs each lane's suites one after the other, the lanes side by side.

    What a suite says is shown when it has ended. Leaving early, by an exception, ends what runs.
    """
    waiting = [list(lane) for lane in lanes]
    running: dict[int, tuple[Suite, subprocess.Popen, float]] = {}
    told = time.monotonic()
    try:
        while running or any(waiting):
            for lane, left in enumerate(waiting):
                if lane not in running and left:
                    suite = left.pop(0)
                    running[lane] = (suite, start(suite, env), time.monotonic())
            time.sleep(0.1)
            for lane, (suite, child, begun) in list(running.items()):
                if child.poll() is None:
                    continue
                del running[lane]
                suite.read(child.returncode, time.monotonic() - begun)
                say(f"\n{suite.name}: {suite.wall_seconds:.0f} s\n{suite.text().rstrip()}")
                told = time.monotonic()
            if time.monotonic() - told > HEARTBEAT_SECONDS and running:
                told = time.monotonic()
                say("  running: " + ", ".join(one.name for one, _, _ in running.values()))
    finally:
        for _, child, _ in running.values():
            end_process(child)


def start(suite: Suite, env: dict[str, str]) -> subprocess.Popen:
    suite.log.parent.mkdir(parents=True, exist_ok=True)
    say(f"$ {' '.join(suite.command)}")
    with open(suite.log, "wb") as out:
        return subprocess.Popen(
            suite.command,
            cwd=REPO,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def summarise(suites: list[Suite], seconds: float) -> int:
    """Prints what came of the suites, the slowest tests, which GPU run stands. 0: all is well."""
    say("\nSummary")
    for suite in suites:
        verdict = "ok" if suite.ok else "FAILED"
        counts = f"{suite.passed} passed, {suite.failed} failed, {len(suite.skipped)} skipped"
        say(f"  {suite.name:<24} {verdict:<6} {counts}, {suite.wall_seconds:.0f} s")
        if suite.last_line:
            say(f"    {suite.last_line.strip()}")
        for name in suite.skipped:
            say(f"    skipped: {name}")
        if not suite.ok:
            say(f"    exit code {suite.code}, log: {suite.log}")
    slowest = sorted((time for suite in suites for time in suite.times), reverse=True)[:SLOWEST]
    say("Slowest tests")
    for taken, name in slowest:
        say(f"  {taken:6.1f} s  {name}")
    passed, failed = sum(s.passed for s in suites), sum(s.failed for s in suites)
    skipped = sum(len(s.skipped) for s in suites)
    good = all(suite.ok for suite in suites)
    verdict = "All tests passed" if good else "TESTS FAILED"
    counts = f"{passed} passed, {failed} failed, {skipped} skipped"
    say(f"{verdict}: {counts} in {seconds:.0f} s, set-up included.")
    say("Not run here: what only a GPU can show (python tests/cuda/run.py, on a GPU).")
    script = REPO / "tests" / "cuda" / "last_pass.py"
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    say((told.stdout or told.stderr).rstrip())
    return 0 if good else 1
