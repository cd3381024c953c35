"""One save at a time: among the threads of this server, and among servers with the same folder."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# A save takes well under a second. Whoever holds the folder longer may have been stopped.
PATIENCE = 5.0
_saving = threading.Lock()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else saves meanwhile. Where the folder cannot be locked (Windows, some network drives)
    this holds for this server only; and it is not waited for without end."""
    with _saving:
        handle = _locked(folder)
        try:
            yield
        finally:
            if handle is not None:
                with contextlib.suppress(OSError):  # what was saved is saved
                    os.close(handle)


def _locked(folder: Path) -> int | None:
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except BlockingIOError:
                if time.monotonic() >= end:
                    return handle
                time.sleep(0.02)
            except OSError:
                os.close(handle)
                raise
    return None
