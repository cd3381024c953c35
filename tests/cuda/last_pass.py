"""Which commit last passed the GPU tests whole, from results/*.json: python last_pass.py

A run passed whole if every test that the GPU allows ran and passed, no process died, and every
sanitizer that was asked for found nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What decides whether a GPU would have something new to show.
WATCHED = ("native", "comfy_nodes", "tests/cuda")


def commit() -> str:
    """The commit of the sources: PARO_COMMIT where they lie without git, as on a lent GPU."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        told = ""
    return os.environ.get("PARO_COMMIT") or told or "unknown"


def passes(folder: Path = HERE / "results") -> list[dict]:
    """The last whole pass of every GPU and build, newest first."""
    found = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        for build, one in report.get("last_whole_pass", {}).items():
            found.append({"device": report["device"], "build": build, **one})
    return sorted(found, key=lambda one: (one["date"], one["build"]), reverse=True)


def _changes_since(commit: str) -> str:
    """How many commits have touched what a GPU runs since; "" where git cannot tell."""
    command = ["git", "rev-list", "--count", f"{commit}..HEAD", "--", *WATCHED]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    count = done.stdout.strip()
    if done.returncode or not count.isdigit():
        return ""
    return f", {count} commits to {', '.join(WATCHED)} since"


def lines(folder: Path = HERE / "results") -> list[str]:
    """What to print: a line for every GPU and build."""
    found = passes(folder)
    if not found:
        return ["No run of the GPU tests has passed whole yet."]
    return [
        f"GPU tests last passed whole at {one['commit']} on {one['date']}: {one['passed']} passed,"
        f" {one['skipped']} skipped on {one['device']}, {one['build']}"
        f"{_changes_since(one['commit'])}."
        for one in found
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
