"""Where everything lies. All of it is under the repository, or under PARO_CACHE."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


class Paths:
    def __init__(self) -> None:
        self.cache = Path(os.environ.get("PARO_CACHE") or REPO / ".cache").expanduser().resolve()
        self.logs = self.cache / "logs"
        self.venv = self.cache / "venv"
        self.stamps = self.venv / "stamps"  # inside, so that they go when it goes
        self.build = self.cache / "build"
        self.scripts = self.venv / ("Scripts" if sys.platform == "win32" else "bin")
        self.python = self.scripts / ("python.exe" if sys.platform == "win32" else "python")

    def environment(self, **extra: str) -> dict[str, str]:
        """For child processes: the venv's tools first on the path."""
        env = {**os.environ, **extra}
        env["PATH"] = os.pathsep.join([str(self.scripts), env.get("PATH", "")])
        env["VIRTUAL_ENV"] = str(self.venv)
        env["PYTHONUNBUFFERED"] = "1"
        env.pop("PYTHONHOME", None)
        return env
