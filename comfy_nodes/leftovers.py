"""What processes that were ended while they saved have left in a folder of profiles."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# As the library names a file until it is whole (AtomicFile in native/core/src/files/file_io.cpp).
_START, _END = ".paro-", ".tmp"
# A save takes seconds. What is younger may be another server's, under way.
AGE = 24 * 3600.0


def remove(folder: Path) -> None:
    """Deletes unfinished files that nobody can be writing any more. Never raises."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_START) and name.endswith(_END):
                _remove_old(folder / name)


def _remove_old(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > AGE:
            path.unlink()
