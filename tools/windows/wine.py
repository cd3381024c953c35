"""wine with a prefix of its own: what a program wrote, its exit code and how long it took."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ..setup.steps import Progress, SetupError, describe_exit, end_process

PACKAGES = "wine wine64 g++-mingw-w64-x86-64-posix xvfb xdotool imagemagick libgl1-mesa-dri"
# What the trial runs on this side, and Debian's package of each.
PROGRAMS = {
    "wine": "wine",
    "wineserver": "wine",
    "x86_64-w64-mingw32-g++-posix": "mingw-w64",
    "x86_64-w64-mingw32-objdump": "mingw-w64",
    "Xvfb": "Xvfb",
    "xdotool": "xdotool",
    "import": "ImageMagick",
    "convert": "ImageMagick",
}
# Of this side's own Python, which Windows' must not see.
HIDDEN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "WINEARCH", "WINELOADER")
# The debugger opens a window that nobody closes; .NET and HTML are asked for when a prefix is made.
# wine's own msvcp140 breaks the heap whenever torch throws, so Microsoft's comes first.
OVERRIDES = "winedbg.exe=d;mscoree,mshtml=;msvcp140=n,b"


@dataclass(frozen=True)
class Done:
    """A program that has ended. out and err are text; lines end as on Linux."""

    code: int
    out: str
    err: str
    seconds: float

    def closing(self, lines: int = 3) -> str:
        """The last lines that it wrote, on one."""
        kept = [line.strip() for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return " / ".join(kept[-lines:])


def require() -> None:
    """SetupError with all that this machine lacks."""
    lacking = sorted({what for name, what in PROGRAMS.items() if not shutil.which(name)})
    if lacking:
        raise SetupError(
            f"The trial under wine needs {', '.join(lacking)}, which this system lacks",
            f"run: apt-get install {PACKAGES}",
        )


def windows_path(path: Path | str) -> str:
    """As a Windows program names a file of this machine: wine's drive Z is its root."""
    return "Z:" + str(path).replace("/", "\\")


def text(written: bytes) -> str:
    return written.decode("utf-8", errors="replace").replace("\r\n", "\n")


class Wine:
    def __init__(self, prefix: Path, log: Path):
        self.prefix, self.log = prefix, log

    def environment(self, **extra: str) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        env |= {
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": OVERRIDES,
            # No program may open a window, except where a display is named.
            "DISPLAY": "",
            # Intel's OpenMP ends the program where it cannot ask for nodes of memory.
            "KMP_AFFINITY": "disabled",
            "LC_ALL": "C.UTF-8",
        }
        return env | extra

    def version(self) -> str:
        done = subprocess.run(
            ["wine", "--version"], capture_output=True, text=True, env=self.environment()
        )
        return done.stdout.strip()

    def ensure_prefix(self) -> None:
        if (self.prefix / "system.reg").is_file():
            return
        self.prefix.mkdir(parents=True, exist_ok=True)
        done = self.run("wine's prefix", "wineboot", "--init", timeout=300)
        self._server("-w")  # it writes its registry when its last program has ended
        if not (self.prefix / "system.reg").is_file():
            raise SetupError(f"wine made no prefix ({describe_exit(done.code)})", "", self.log)

    def run(
        self,
        name: str,
        program: Path | str,
        *arguments: str,
        cwd: Path | None = None,
        timeout: float = 600,
        **extra: str,
    ) -> Done:
        """Runs a Windows program with a progress line. extra: of its environment.

        Its streams are pipes: with a file or the null device Python does not start under wine 8.
        A program that does not end in time has the exit code 124.
        """
        command = ["wine", str(program), *arguments]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with Progress(name):
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment(**extra),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            try:
                out, err = child.communicate(timeout=timeout)
                code = child.returncode
            except subprocess.TimeoutExpired:
                self.end()  # else its children hold the pipes open
                end_process(child)
                out, err = child.communicate()
                code = 124
            finally:
                end_process(child)
        done = Done(code, text(out), text(err), time.monotonic() - started)
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{done.out}{done.err}(exit code {code})\n")
        return done

    def end(self) -> None:
        """Ends whatever still runs in this prefix, and nothing else."""
        self._server("-k")

    def _server(self, option: str) -> None:
        subprocess.run(
            ["wineserver", option], env=self.environment(), capture_output=True, timeout=120
        )
