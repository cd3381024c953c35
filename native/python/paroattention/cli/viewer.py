"""`python -m paroattention view [FILE]`: the desktop viewer, where it was built or installed."""

from __future__ import annotations

import subprocess
import sys

from .. import desktop_viewer


def main(arguments: list[str]) -> int:
    """Runs the viewer with these arguments; returns its exit code, 1 where there is none."""
    found = desktop_viewer.program()
    if found is None:
        print(
            f"error: {desktop_viewer.NAME} is not installed. It is in the wheel of this package;"
            " from source, build it with `python3 run.py view`",
            file=sys.stderr,
        )
        return 1
    return subprocess.call([found, *arguments])
