"""`python -m paroattention view [FILE]`: the desktop viewer, where it was built or installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

NAME = "paro-viewer"


def program() -> str | None:
    """paro-viewer beside this package, else on the path; None without one."""
    package = Path(__file__).resolve().parents[1]
    return shutil.which(NAME, path=str(package)) or shutil.which(NAME)


def main(arguments: list[str]) -> int:
    """Runs the viewer with these arguments; returns its exit code, 1 where there is none."""
    found = program()
    if found is None:
        print(
            f"error: {NAME} is not installed. It is in the wheel of this package;"
            " from source, build it with `python3 run.py view`",
            file=sys.stderr,
        )
        return 1
    # Who types the command names the arguments; the program is the package's own, or the path's.
    return subprocess.call([found, *arguments])  # noqa: S603
