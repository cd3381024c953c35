"""Output on any console: what it cannot show is escaped, and a closed pipe is not an error.

Standard library only: run.py uses this file before the package is installed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator


class _Stream:
    """A text stream that goes on into nothing once its reader has closed it (`| head`)."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._close(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._close(error)

    def _close(self, error: OSError) -> None:
        # The file below holds what could not be written and tries again at the interpreter's end.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        # Windows says EINVAL of a pipe without a reader. A full disk is an error, and told.
        closed = (errno.EPIPE, errno.EINVAL) if sys.platform == "win32" else (errno.EPIPE,)
        if error.errno not in closed:
            raise error


def _prepared(stream):
    if stream is None:
        # pythonw has no console at all.
        return open(os.devnull, "w", encoding="utf-8")
    # Consoles of other code pages, and names of files whose bytes are no text.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return _Stream(stream)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """sys.stdout and sys.stderr that take any text, for the whole of a command."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            sys.stdout, sys.stderr = before


def shown(text: object) -> str:
    """A path or name for a line of output: control characters and the like are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text)
    )
