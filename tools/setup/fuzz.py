"""Builds and runs the fuzz targets of tests/fuzz, and the threads under TSan."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import native, python_env, system
from .paths import REPO, Paths
from .steps import SetupError, commit, end_process, say

FOLDER = REPO / "tests" / "fuzz"
RACES = "races"
CLANG = system.Need(
    "Clang with its sanitizers", True, "clang llvm", "clang compiler-rt llvm",
    "clang compiler-rt llvm", "llvm",
)  # fmt: skip
# What an input may take: memory in all and in one allocation, in MB. The targets count its second
# of processor time themselves (fuzz.h); -timeout is for what would never end.
LIMITS = ("-rss_limit_mb=512", "-malloc_limit_mb=64", "-timeout=30", "-max_len=8192")
SANITIZERS = {
    # Freed memory that is kept to catch its use counts as memory of the input.
    "ASAN_OPTIONS": "quarantine_size_mb=16:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@dataclass
class Outcome:
    target: str
    executions: int = 0
    seconds: float = 0.0
    edges: int = 0  # of the program's code that were reached
    corpus: int = 0  # inputs that reach something of their own
    memory_mb: int = 0
    found: list[str] | None = None  # files of inputs that broke it

    @property
    def sound(self) -> bool:
        return not self.found


def targets() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in FOLDER.glob("fuzz_*.cpp"))


def find_clang() -> str | None:
    """A clang++ that links libFuzzer and both sanitizers."""
    source = b'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }\n'
    for name in ("clang++", *(f"clang++-{version}" for version in range(20, 13, -1))):
        if not (found := shutil.which(name)):
            continue
        command = [found, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", os.devnull]
        if subprocess.run(command, input=source, capture_output=True).returncode == 0:
            return found
    return None


def ensure_system(paths: Paths) -> str:
    """Clang, and the headers that the core needs."""

    def missing() -> list[system.Need]:
        clang = find_clang()
        if clang is None:
            return [CLANG]
        headers = [(system.ZLIB, "zlib.h"), (system.JSON, "nlohmann/json.hpp")]
        return [n for n, header in headers if not system.compiles(clang, f"#include <{header}>\n")]

    if sys.platform != "linux":
        raise SetupError("run.py fuzz runs on Linux only: the targets use its files in memory")
    needs = missing()
    if needs and system.is_root() and shutil.which("apt-get"):
        say(f"Missing on this system: {', '.join(need.what for need in needs)}.")
        log = paths.logs / "apt.log"
        system.apt_run(["update"], log)
        names = [name for need in needs for name in need.apt.split()]
        system.apt_run(["install", "-y", "--no-install-recommends", *names], log)
        needs = missing()
    if any(need.required for need in needs):
        names = ", ".join(need.what for need in needs)
        raise SetupError(f"Fuzzing needs {names}", f"run: {system.install_command(needs)}")
    return find_clang() or "clang++"


def ensure_tools(paths: Paths) -> None:
    """CMake and ninja: the venv's, the system's, or else put into the venv."""
    python_env.ensure_venv(paths)
    path = os.pathsep.join([str(paths.scripts), os.environ.get("PATH", "")])
    wanted = [name for name in ("cmake", "ninja") if not shutil.which(name, path=path)]
    if wanted:
        python_env.install(paths, " and ".join(wanted), wanted, paths.logs / "packages.log")


def build(paths: Paths, names: list[str]) -> Path:
    """The folder with the built programs of these targets."""
    clang = ensure_system(paths)
    ensure_tools(paths)
    races = names == [RACES]
    folder = paths.build / ("races" if races else "fuzz")
    env = {**native.build_environment(paths), "CMAKE_GENERATOR": "Ninja"}
    configure = ["cmake", "-S", str(REPO), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DPARO_BUILD_{'RACES' if races else 'FUZZ'}=ON"]
    configure += [f"-DCMAKE_CXX_COMPILER={clang}", f"-DCMAKE_C_COMPILER={clang.replace('++', '')}"]
    log = paths.logs / "fuzz-build.log"
    native.run_tool(paths, "configuring the fuzz targets", configure, log, env)
    programs = ["paro_races"] if races else [f"fuzz_{name}" for name in names]
    make = ["cmake", "--build", str(folder), "--target", *programs]
    native.run_tool(paths, "building the fuzz targets", make, log, env)
    return folder / "tests" / "fuzz"


def environment() -> dict[str, str]:
    env = {**os.environ, **SANITIZERS}
    if symbolizer := shutil.which("llvm-symbolizer"):
        env["ASAN_SYMBOLIZER_PATH"] = env["TSAN_SYMBOLIZER_PATH"] = symbolizer
    return env


def run_target(paths: Paths, programs: Path, name: str, seconds: float) -> Outcome:
    """Fuzzes one target. What it learns is kept in the cache for the next run."""
    corpus, crashes = paths.cache / "fuzz" / "corpus" / name, paths.cache / "fuzz" / "found"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    command = [str(programs / f"fuzz_{name}"), *LIMITS, f"-max_total_time={max(1, round(seconds))}"]
    command += ["-print_final_stats=1", f"-artifact_prefix={crashes}/{name}-"]
    dictionary = FOLDER / "dictionaries" / f"{name}.dict"
    if dictionary.is_file():
        command.append(f"-dict={dictionary}")
    command += [str(corpus), str(FOLDER / "corpus" / name)]
    log = paths.logs / f"fuzz-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), cwd=REPO)
        try:
            # It ends by itself; reading a large corpus first may take a while.
            code = child.wait(seconds * 2 + 600)
        except subprocess.TimeoutExpired:
            code = 1
        finally:
            end_process(child)
    outcome = read_log(name, log.read_text(encoding="utf-8", errors="replace"))
    outcome.seconds = round(time.monotonic() - begun, 1)
    outcome.found = sorted(str(path) for path in set(crashes.iterdir()) - before)
    if code != 0 and not outcome.found:
        outcome.found = [f"no input was kept, see {log}"]
    return outcome


def read_log(name: str, text: str) -> Outcome:
    """The counts that libFuzzer prints."""
    outcome = Outcome(name)

    def last(pattern: str) -> int:
        found = re.findall(pattern, text)
        return int(found[-1]) if found else 0

    outcome.executions = last(r"stat::number_of_executed_units:\s+(\d+)")
    outcome.memory_mb = last(r"stat::peak_rss_mb:\s+(\d+)")
    outcome.edges = last(r"\bcov: (\d+)")
    outcome.corpus = last(r"\bcorp: (\d+)/")
    return outcome


def run_races(programs: Path, seconds: float) -> bool:
    command = [str(programs / "paro_races"), str(round(seconds))]
    return subprocess.run(command, env=environment(), cwd=REPO).returncode == 0


def tell(outcome: Outcome, programs: Path) -> None:
    rate = outcome.executions / max(outcome.seconds, 0.1)
    verdict = "nothing found" if outcome.sound else "FOUND"
    say(
        f"  {outcome.target:<12} {outcome.executions:>12,} executions, {rate:>8,.0f} a second,"
        f" {outcome.edges:>6,} edges, {outcome.memory_mb:>4} MB: {verdict}"
    )
    for path in outcome.found or []:
        say(f"    {path}\n    again: {programs / ('fuzz_' + outcome.target)} {path}")


def add_up(path: Path, outcomes: list[Outcome], run: dict[str, str]) -> None:
    """Adds to what earlier runs wrote: executions and seconds are sums, edges the last run's.

    run: what tells this run from the others, such as its command, commit and time.
    """
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept, runs = told.get("targets", {}), told.get("runs", [])
    if not runs or any(runs[-1].get(name) != value for name, value in run.items()):
        runs.append({**run, "executions": 0})
    runs[-1]["executions"] += sum(outcome.executions for outcome in outcomes)
    for outcome in outcomes:
        now, before = asdict(outcome), kept.get(outcome.target, {})
        now.pop("target")
        now["executions"] += before.get("executions", 0)
        now["seconds"] = round(now["seconds"] + before.get("seconds", 0.0), 1)
        now["found"] = len(outcome.found or []) + before.get("found", 0)
        now["memory_mb"] = max(now["memory_mb"], before.get("memory_mb", 0))
        kept[outcome.target] = now
    told = {
        "executions": sum(one["executions"] for one in kept.values()),
        "runs": runs,
        "targets": dict(sorted(kept.items())),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def run(
    paths: Paths, names: list[str], seconds: float, jobs: int, out: Path | None, command: str
) -> bool:
    """Fuzzes for `seconds` in all, `jobs` targets side by side. Whether nothing was found."""
    known = targets()
    wrong = [name for name in names if name not in (*known, RACES)]
    if wrong:
        choices = ", ".join([*known, RACES])
        raise SetupError(f"--target must be one of {choices} (got {wrong[0]})")
    sound = True
    if RACES in names:
        programs = build(paths, [RACES])
        say(f"Threads under TSan, {seconds:.0f} s")
        sound = run_races(programs, seconds)
        names = [name for name in names if name != RACES]
        if not names:
            return sound
    chosen = names or known
    programs = build(paths, chosen)
    each = seconds * min(jobs, len(chosen)) / len(chosen)
    say(f"{len(chosen)} targets, {each:.0f} s each, {jobs} at a time")
    outcomes = []
    this = {"begun": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(), "command": command}
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda name: run_target(paths, programs, name, each), chosen):
            tell(outcome, programs)
            outcomes.append(outcome)
            if out is not None:
                add_up(out, [outcome], this)
    total = sum(outcome.executions for outcome in outcomes)
    found = sum(not outcome.sound for outcome in outcomes)
    say(f"{total:,} executions; {found} of {len(chosen)} targets found something.")
    return sound and found == 0
