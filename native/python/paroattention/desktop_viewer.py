"""The desktop viewer: where it is, and its windows. `python -m paroattention view` runs it too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAME = "paro-viewer"
MAX_OPEN = 8
_open: list[subprocess.Popen] = []


def program() -> str | None:
    """paro-viewer beside this package, else on the path; None without one."""
    return shutil.which(NAME, path=str(Path(__file__).resolve().parent)) or shutil.which(NAME)


def has_display() -> bool:
    """Whether a window can be opened for whoever sits at this machine."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(found: str, path: Path) -> bool:
    """Opens a file in the viewer `found` and does not wait; False where MAX_OPEN are open already.
    OSError where the program does not start."""
    _open[:] = [viewer for viewer in _open if viewer.poll() is None]
    if len(_open) >= MAX_OPEN:
        return False
    quiet, command = subprocess.DEVNULL, [found, str(path)]
    _open.append(
        subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    )
    return True
