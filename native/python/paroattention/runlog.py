"""runlog.jsonl: one line per step, layer and head group; read by the viewer and by bug reports."""

from __future__ import annotations

import json
import os
from pathlib import Path

_MAX_BYTES = 16 << 20


class RunLog:
    """Collects lines in memory and appends them in one write, so that a run never waits for a disk.

    A file beyond 16 MB is renamed to `<name>.1` first, replacing an older one.
    """

    def __init__(self, path: str | os.PathLike | None):
        self.path = Path(path) if path else None
        self.lines: list[dict] = []

    def add(self, **fields) -> None:
        self.lines.append(fields)

    def flush(self) -> None:
        """Appends what was collected. OSError passes to the caller: a log must not end a run."""
        lines, self.lines = self.lines, []
        if self.path is None or not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        # Unbuffered: in one call of the system, so that lines of two processes do not mix.
        with open(self.path, "a+b", buffering=0) as file:
            _append(file, text.encode())


def _append(file, text: bytes) -> None:
    """Writes text at the end of a file, on a line of its own; nothing of it to a full disk."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            # A process was ended in the middle of a line.
            text = b"\n" + text
    written = 0
    try:
        while written < len(text):
            written += file.write(text[written:])
    except OSError:
        # Not what another process has written behind it.
        if written and file.seek(0, os.SEEK_END) == end + written:
            file.truncate(end)
        raise
