"""A virtual display, what is to be seen on it, and whether that is what the viewer drew."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..setup.steps import SetupError

SIZE = (1400, 900)
# Two pictures of one state may differ where a cursor blinks or a message fades.
LEAST_ALIKE = 0.97
LEAST_COLOURS = 100
LEAST_LIT = 0.5
NEAR = 8  # of 255, in each colour


@dataclass(frozen=True)
class Place:
    """Of a window on its display, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    """rgb: three bytes a pixel, row by row."""

    width: int
    height: int
    rgb: bytes

    def crop(self, place: Place) -> Picture:
        row, part = 3 * self.width, slice(3 * place.left, 3 * (place.left + place.width))
        rows = range(place.top, min(place.top + place.height, self.height))
        kept = [self.rgb[row * y : row * (y + 1)][part] for y in rows]
        return Picture(len(kept[0]) // 3 if kept else 0, len(kept), b"".join(kept))

    def colours(self) -> int:
        return len({self.rgb[i : i + 3] for i in range(0, len(self.rgb), 3)})

    def lit(self) -> float:
        """The share of pixels that are not black."""
        black = sum(self.rgb[i : i + 3] == b"\0\0\0" for i in range(0, len(self.rgb), 3))
        return 1 - black / max(1, len(self.rgb) // 3)

    def alike(self, other: Picture) -> float:
        """The share of pixels that are the same in both, but for rounding."""
        if (self.width, self.height) != (other.width, other.height):
            return 0.0
        near = [abs(a - b) <= NEAR for a, b in zip(self.rgb, other.rgb, strict=True)]
        same = sum(all(near[i : i + 3]) for i in range(0, len(near), 3))
        return same / max(1, len(near) // 3)


def faults(screen: Picture, window: Place, drawn: Picture) -> list[str]:
    """What is wrong with a picture of the screen, given where the window lies and what it drew."""
    seen = screen.crop(window)
    found = []
    if (colours := seen.colours()) < LEAST_COLOURS:
        found.append(f"the window has {colours} colours, at least {LEAST_COLOURS} are wanted")
    if (lit := seen.lit()) < LEAST_LIT:
        found.append(f"{1 - lit:.0%} of the window are black")
    if (alike := seen.alike(drawn)) < LEAST_ALIKE:
        found.append(f"the screen shows {alike:.0%} of what the viewer drew")
    return found


def read(png: Path) -> Picture:
    size = _output(["convert", str(png), "-format", "%w %h", "info:"]).decode().split()
    rgb = _output(["convert", str(png), "-alpha", "off", "-depth", "8", "rgb:-"])
    return Picture(int(size[0]), int(size[1]), rgb)


class Display:
    def __init__(self, name: str):
        self.name = name

    def find(self, title: str, patience: float) -> str:
        """X's number of a visible window whose title has this in it; "" where none comes."""
        deadline = time.monotonic() + patience
        command = ["xdotool", "search", "--onlyvisible", "--name", title]
        while time.monotonic() < deadline:
            found = subprocess.run(command, capture_output=True, text=True, env=self._env())
            if numbers := found.stdout.split():
                return numbers[0]
            time.sleep(0.5)
        return ""

    def place(self, window: str) -> Place:
        command = ["xdotool", "getwindowgeometry", "--shell", window]
        told = _output(command, self._env()).decode()
        numbers = dict(re.findall(r"^(X|Y|WIDTH|HEIGHT)=(-?\d+)$", told, re.MULTILINE))
        return Place(*(int(numbers[name]) for name in ("X", "Y", "WIDTH", "HEIGHT")))

    def title(self, window: str) -> str:
        return _output(["xdotool", "getwindowname", window], self._env()).decode().strip()

    def grab(self, png: Path) -> Picture:
        """The whole screen, also as a file."""
        _output(["import", "-window", "root", str(png)], self._env())
        return read(png)

    def _env(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": self.name}


@contextlib.contextmanager
def display() -> Iterator[Display]:
    """One of its own; the server picks its number."""
    come, go = os.pipe()
    size = f"{SIZE[0]}x{SIZE[1]}x24"
    command = ["Xvfb", "-displayfd", str(go), "-screen", "0", size, "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[go], stderr=subprocess.DEVNULL)
    os.close(go)
    try:
        # To the line's end: the server dies of a pipe that is closed before.
        with os.fdopen(come) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise SetupError("Xvfb does not start", "run it by hand to see why: Xvfb :99")
        yield Display(f":{number}")
    finally:
        server.terminate()
        server.wait(20)


def _output(command: list[str], env: dict[str, str] | None = None) -> bytes:
    done = subprocess.run(command, capture_output=True, env=env, timeout=120)
    if done.returncode:
        error = done.stderr.decode(errors="replace").strip()[:200]
        raise SetupError(f"{command[0]} failed: {error or done.returncode}")
    return done.stdout
