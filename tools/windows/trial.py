"""Tries the wheel for Windows step by step, and writes what came of it."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import time
import zipfile
from pathlib import Path

from ..setup.paths import REPO, Paths
from ..setup.steps import SetupError, hash_file, say
from ..wheels.inputs import WINDOWS_PYTHONS
from ..wheels.pack import TAGS
from . import environment, wine
from .context import Context, Failed
from .steps import STEPS

WHEELS = REPO / "out" / "wheels"
OUT = REPO / "out" / "windows"
RESULTS = REPO / "tests" / "windows" / "results"
PASSED, FAILED, LEFT_OUT = "passed", "failed", "not tried"


def find_wheel(named: Path | None, folder: Path = WHEELS) -> Path:
    """The wheel to try: the one named, else the newest that was built. SetupError for another."""
    todo = "build one: python3 run.py wheels --system windows"
    if named is None:
        found = sorted(folder.glob("paroattention-*.whl"), key=lambda file: file.stat().st_mtime)
        found = [file for file in found if file.stem.endswith(TAGS["windows"])]
        if not found:
            raise SetupError("There is no wheel for Windows in out/wheels", todo)
        return found[-1]
    if not named.is_file():
        raise SetupError(f"There is no wheel {named}", todo)
    if not named.name.endswith(f"-{TAGS['windows']}.whl") or not zipfile.is_zipfile(named):
        raise SetupError(
            f"{named.name} is no wheel for Windows (wanted: NAME-{TAGS['windows']}.whl)", todo
        )
    return named.resolve()


def try_wheel(paths: Paths, named: Path | None, version: str, quick: bool) -> bool:
    """Every step, told as it ends. True where all passed; the results are written either way."""
    wheel = find_wheel(named)
    wine.require()
    started = time.monotonic()
    made = environment.Environment(paths)
    say(f"Trying {wheel.name} under {made.wine.version()}, set up in {made.folder}")
    made.wine.ensure_prefix()
    OUT.mkdir(parents=True, exist_ok=True)
    context = Context(made, wheel, version, quick, OUT)
    assert context.python.is_dir()  # made here, so that no step's time holds it
    for other in WINDOWS_PYTHONS:
        made.python(other, with_torch=False)
    set_up = time.monotonic() - started
    say(f"Set-up is ready after {set_up:.0f} s.\n")
    try:
        outcomes = run_steps(context)
    finally:
        made.wine.end()
    report = {
        **about(context),
        "passed": all(one["outcome"] == PASSED for one in outcomes),
        "seconds": {"set_up": round(set_up), "steps": round(sum(o["seconds"] for o in outcomes))},
        "steps": outcomes,
    }
    file = write(report, made.wine.version(), quick)
    say(f"\n{summary(outcomes)}\nResults: {file.relative_to(REPO)}, log: {made.log}")
    return report["passed"]


def run_steps(context: Context, steps: dict = STEPS) -> list[dict]:
    """Without the wheel installed none of the others is worth its time."""
    outcomes: list[dict] = []
    for name, step in steps.items():
        begun = time.monotonic()
        if outcomes and outcomes[0]["outcome"] != PASSED:
            outcome, told, details = LEFT_OUT, "the wheel is not installed", {}
        else:
            try:
                (told, details), outcome = step(context), PASSED
            except (Failed, SetupError) as error:
                outcome, told, details = FAILED, str(error), getattr(error, "details", {})
        seconds = round(time.monotonic() - begun, 1)
        say(f"{name}: {outcome} in {seconds:.0f} s. {told}")
        outcomes.append(
            {"name": name, "outcome": outcome, "told": told, "seconds": seconds, **details}
        )
    return outcomes


def about(context: Context) -> dict:
    """What was tried, with what."""
    made = context.wine.version()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    return {
        "wheel": context.wheel.name,
        "sha256": hash_file(context.wheel),
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
        "wine": made,
        "python": WINDOWS_PYTHONS[context.version],
        "packages": sorted(environment.packages(context.version)),
        "quick": context.quick,
    }


def write(report: dict, version: str, quick: bool) -> Path:
    """A whole trial's results are kept with the tests, a quick one's only in out/."""
    found = re.search(r"\d+", version)
    folder = OUT if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"wine{found[0] if found else ''}.json"
    text = json.dumps(report, indent=1, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8")
    return file


def summary(outcomes: list[dict]) -> str:
    bad = [one["name"] for one in outcomes if one["outcome"] != PASSED]
    if bad:
        return f"THE WHEEL FAILED: {', '.join(bad)}"
    return f"The wheel passed all {len(outcomes)} steps"
