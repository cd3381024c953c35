"""Faults at system calls of another process: see syscalls.c, which this builds and steers."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("syscalls.c")
KILL, FAIL = 1, 2
# As in syscalls.c: five numbers, the folder, the names of the first calls.
_NUMBERS = ("at", "action", "error", "count", "clock")
_FOLDER, _NAMES, _NAME = 4096, 256, 24
_SIZE = 8 * len(_NUMBERS) + _FOLDER + _NAMES * _NAME


def build(folder: Path) -> Path:
    """The library, compiled into a folder. Fails without a C compiler: a build of ours needs one
    of C++ too."""
    compiler = next((one for one in ("cc", "gcc", "clang") if shutil.which(one)), "cc")
    library = folder / "syscalls.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class Faults:
    """What one process and its forks are to suffer, and what they did.

    folder: calls on files below it are counted. `environment` is for the process.
    """

    def __init__(self, library: Path, file: Path, folder: Path):
        file.write_bytes(bytes(_SIZE))
        self.environment = {"LD_PRELOAD": str(library), "PARO_FAULTS_CONTROL": str(file)}
        self._attach(file)
        name = os.fsencode(folder)
        self._map[40 : 40 + len(name)] = name

    @classmethod
    def here(cls) -> Faults:
        """Those of this very process."""
        found = cls.__new__(cls)
        found._attach(Path(os.environ["PARO_FAULTS_CONTROL"]))
        return found

    def _attach(self, file: Path) -> None:
        with open(file, "r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _SIZE)

    def _place(self, name: str) -> slice:
        at = 8 * _NUMBERS.index(name)
        return slice(at, at + 8)

    def get(self, name: str) -> int:
        return int.from_bytes(self._map[self._place(name)], "little", signed=True)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            self._map[self._place(name)] = value.to_bytes(8, "little", signed=True)

    def arm(self, at: int, action: int = KILL, error: int = errno.ENOSPC) -> None:
        """Call number `at` from now on breaks; 0: none, they are only counted."""
        self.set(at=0, count=0, action=action, error=error)
        self.set(at=at)

    def calls(self) -> list[str]:
        """The names of the calls since `arm`."""
        start, count = 40 + _FOLDER, min(self.get("count"), _NAMES)
        names = (self._map[start + i * _NAME : start + (i + 1) * _NAME] for i in range(count))
        return [name.split(b"\0")[0].decode() for name in names]
