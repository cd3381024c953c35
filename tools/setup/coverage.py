"""`run.py test --coverage`: which share of the core and of the package the tests run.

The core is compiled once more, with gcc's counters, and its tests run on that too. Python's tests
run under coverage.py, servers that they start included. Below FLOORS the command fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import native
from .paths import REPO, Paths
from .steps import SetupError, say
from .suites import Suite

# Percent of the lines. Benchmarks are run by hand, some on a GPU alone: told, without a floor.
FLOORS = {"native/core": 90.0, "paroattention": 90.0, "comfy_nodes": 90.0, "benchmarks": 0.0}
CONFIG = REPO / "pyproject.toml"
MEASURED = ("python", "comfy")


@dataclass(frozen=True)
class Share:
    """Lines and branches that ran, of those that there are."""

    part: str
    lines: tuple[int, int]
    branches: tuple[int, int]

    @property
    def percent(self) -> float:
        return 100.0 * self.lines[0] / max(1, self.lines[1])

    def __str__(self) -> str:
        branches = 100.0 * self.branches[0] / max(1, self.branches[1])
        lines = f"{self.percent:.1f} % of {self.lines[1]} lines"
        return f"{self.part}: {lines}, {branches:.1f} % of {self.branches[1]} branches"


def watch(paths: Paths, suite: Suite) -> None:
    """Has a suite of Python measured."""
    at = suite.command.index("-m")
    words = ["-m", "coverage", "run", f"--rcfile={CONFIG}", f"--source={','.join(sources(paths))}"]
    suite.command[at:at] = words


def sources(paths: Paths) -> list[str]:
    return [str(native.installed_package(paths)), str(REPO / "comfy_nodes")]


def environment(results: Path) -> dict[str, str]:
    return {"COVERAGE_FILE": str(results / "coverage" / "python")}


def native_suites(paths: Paths, results: Path) -> list[Suite]:
    """The C++ tests on a core that counts."""
    if shutil.which("gcov") is None:
        raise SetupError("--coverage needs gcov, which comes with GCC", "install gcc")
    folder = paths.build / "coverage"
    native.build_tests(paths, folder, ["-DPARO_COVERAGE=ON"])
    for counts in folder.rglob("*.gcda"):
        counts.unlink()
    found = []
    for name in ("native/paro_tests", "viewer/paro_viewer_tests"):
        stem = Path(name).name
        report, log = results / f"{stem}-counted.xml", results / f"{stem}-counted.log"
        command = [str(folder / "tests" / name), "--reporter", f"junit::out={report}"]
        command += ["--reporter", "console"]
        found.append(Suite(f"{stem}, counted", command, report, log, "tests passed|failed"))
    return found


def report(paths: Paths, results: Path) -> bool:
    """Prints the shares and writes them to coverage.json. False where one is below its floor."""
    shares = [_core(paths), *_python(paths, results)]
    (results / "coverage.json").write_text(
        json.dumps({one.part: [*one.lines, *one.branches] for one in shares}, indent=1) + "\n"
    )
    say("Coverage")
    good = True
    for one in shares:
        enough = one.percent >= FLOORS[one.part]
        say(f"  {one}" + ("" if enough else f": at least {FLOORS[one.part]:.0f} % are wanted"))
        good = good and enough
    return good


def _core(paths: Paths) -> Share:
    command = [str(paths.python), "-m", "gcovr", "--root", str(REPO), "--json-summary", "-"]
    # What the compiler adds for exceptions is no branch of ours.
    command += ["--exclude-throw-branches", "--filter", "native/core/", "-j", str(os.cpu_count())]
    told = _run(paths, [*command, str(paths.build / "coverage")])
    found = json.loads(told)
    lines = (found["line_covered"], found["line_total"])
    return Share("native/core", lines, (found["branch_covered"], found["branch_total"]))


def _python(paths: Paths, results: Path) -> list[Share]:
    base = [str(paths.python), "-m", "coverage"]
    env = environment(results)
    _run(paths, [*base, "combine", "--quiet", str(results / "coverage")], env)
    told = json.loads(_run(paths, [*base, "json", "--quiet", "-o", "-"], env))
    shares = []
    for part in ("paroattention", "comfy_nodes", "benchmarks"):
        files = [one["summary"] for name, one in told["files"].items() if _part(name) == part]
        if not files:
            raise SetupError(f"no file of {part} was measured")

        def total(key: str, files: list[dict] = files) -> int:
            return sum(file[key] for file in files)

        lines = (total("covered_lines"), total("num_statements"))
        shares.append(Share(part, lines, (total("covered_branches"), total("num_branches"))))
    return shares


def _part(name: str) -> str:
    """The part that a file of the report belongs to."""
    parts = Path(name).parts
    if "comfy_nodes" in parts:
        return "comfy_nodes"
    return "benchmarks" if "bench" in parts else "paroattention"


def _run(paths: Paths, command: list[str], env: dict[str, str] | None = None) -> str:
    every = paths.environment(**(env or {}))
    done = subprocess.run(command, cwd=REPO, env=every, capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command[:4])} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
