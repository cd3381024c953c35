"""paro-viewer.exe of the wheel in a window: clicked by a script, looked at from outside, closed."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from ..setup.paths import REPO
from ..setup.steps import end_process
from . import screen
from .context import Context, Failed
from .wine import text, windows_path

# With a space and beyond any one code page, as files of users are.
NAME = "für 配置 720p"
SIZE = (1280, 720)
TITLE = "PARO Viewer"
HEADS = 12
# What a user does first, with what must come of it.
SESSION = f"""wait
expect heads == {HEADS}
expect selection == double.0.0 head 0
click tile.5
wait
expect selection == double.1.0 head 1
let before = mask.count
drag density.slider 0.4 0.5 0.8 0.5
expect mask.count > $before
key ctrl+z
expect mask.count == $before
"""


def try_viewer(context: Context) -> tuple[str, dict]:
    """The step of the trial: (what is told, details)."""
    program = context.site / "paroattention" / "paro-viewer.exe"
    version = context.wine.run("paro-viewer --version", program, "--version", timeout=60)
    context.want(version.code == 0, f"paro-viewer.exe --version: {version.closing()}")
    folder = context.scratch / "viewer"
    profile = make_profile(context, folder)
    with screen.display() as display:
        session(context, program, profile, folder, display)
        drawn = context.out / "viewer-drawn.png"
        title, alike = window(context, program, profile, folder, display, drawn)
    return (
        f"{version.out.strip()}; a scripted session passed; the screen shows {alike:.1%} of what it"
        f" drew; it ended when its window was closed",
        {"title": title, "alike": round(alike, 4), "picture": "out/windows/viewer.png"},
    )


def make_profile(context: Context, folder: Path) -> Path:
    """A profile with its capture, learnt by the wheel on Windows' Python."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = (windows_path(REPO / "tests" / "viewer"), windows_path(folder), NAME)
    done = context.probe("make_profile", *arguments)
    profile = folder / f"{NAME}.json"
    if done.code or not profile.is_file():
        raise Failed(f"no profile was made to show: {done.closing()}")
    return profile


def options(folder: Path) -> list[str]:
    width, height = SIZE
    return ["--size", f"{width}x{height}", "--config", windows_path(folder / "config")]


def session(
    context: Context, program: Path, profile: Path, folder: Path, display: screen.Display
) -> None:
    script = folder / "session.txt"
    script.write_text(SESSION, encoding="utf-8")
    given = (windows_path(profile), "--script", windows_path(script), *options(folder))
    name, shown = "a session in the viewer", {"DISPLAY": display.name}
    done = context.wine.run(name, program, *given, timeout=300, **shown)
    context.want(done.code == 0, f"the session failed: {done.closing()}")


def window(
    context: Context,
    program: Path,
    profile: Path,
    folder: Path,
    display: screen.Display,
    drawn: Path,
) -> tuple[str, float]:
    """The window as a user opens it. (its title, how much of what it drew the screen shows)."""
    wine, shown = context.wine, {"DISPLAY": display.name}
    given = (windows_path(profile), *options(folder))
    picture = ("--screenshot", windows_path(drawn))
    done = wine.run("a picture by the viewer", program, *given, *picture, timeout=300, **shown)
    context.want(done.code == 0 and drawn.is_file(), f"--screenshot: {done.closing()}")
    child = subprocess.Popen(
        ["wine", str(program), *given],
        env=wine.environment(**shown),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        found = display.find(TITLE, 60)
        context.want(bool(found), "its window did not come up within 60 s")
        own, place = screen.read(drawn), display.place(found)
        seen = context.out / "viewer.png"
        wrong = [f"it is not there: {TITLE}"]
        for _ in range(20):  # it computes maps of all heads before it is at rest
            wrong = screen.faults(display.grab(seen), place, own)
            if not wrong or child.poll() is not None:
                break
            threading.Event().wait(1)
        context.want(not wrong, "; ".join(wrong))
        title = display.title(found)
        alike = screen.read(seen).crop(place).alike(own)
        closing = context.probe("close_window", TITLE, **shown)
        context.want(closing.code == 0, f"the window cannot be closed: {closing.closing()}")
        out, _ = child.communicate(timeout=60)
        context.want(
            child.returncode == 0, f"closed, it ended with {child.returncode}: {text(out)}"
        )
        return title, alike
    except subprocess.TimeoutExpired:
        raise Failed("it still ran 60 s after its window was closed") from None
    finally:
        end_process(child)
