"""A real window on a virtual display: scripts in it, and one driven from outside by xdotool."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

import pytest
from conftest import make_profile
from paroattention import Profile
from test_ui import SESSION


@pytest.fixture(scope="module")
def display():
    """A virtual display of its own; its number is picked by the server."""
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        if os.environ.get("PARO_REQUIRE_VIEWER"):
            pytest.fail("Xvfb and xdotool must be installed")
        pytest.skip("Xvfb or xdotool is missing")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    # To the line's end: the server dies of a pipe that is closed before.
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait(20)


def test_the_same_session_in_a_window(run, profile, tmp_path, display):
    other = make_profile(tmp_path, "other", seed=1)
    run(SESSION.format(profile=profile, other=other), headless=False, display=display)
    assert Profile.load(profile).layers[0].heads[1].order == "WHF"


def test_a_window_driven_by_xdotool(viewer, run, profile, tmp_path, display):
    places = run(
        f"open {profile}\nwait\nwhere density.slider\nwhere tile.4\n",
        headless=False,
        display=display,
    )
    where = {}
    for line in places.stdout.splitlines():
        if line.startswith("where "):
            _, name, *numbers = line.split()
            where[name] = [int(number) for number in numbers]

    def at(name, x, y=0.5):
        left, top, right, bottom = where[name]
        return [str(round(left + (right - left) * x)), str(round(top + (bottom - top) * y))]

    env = {**os.environ, "DISPLAY": display, "PARO_CONFIG_DIR": str(tmp_path / "config")}
    process = subprocess.Popen([str(viewer), str(profile), "--size", "1280x720"], env=env)

    def xdotool(*arguments):
        return subprocess.run(
            ["xdotool", *arguments], env=env, capture_output=True, text=True, timeout=60
        )

    try:
        window = ""
        for _ in range(100):
            window = xdotool(
                "search", "--onlyvisible", "--name", "wan.json.*PARO Viewer"
            ).stdout.split()
            if window:
                break
            time.sleep(0.2)
        assert window, "the window never came up"
        xdotool("windowmove", "--sync", window[0], "0", "0")
        xdotool("windowfocus", "--sync", window[0])
        time.sleep(1)
        for words in (
            ["mousemove", *at("tile.4", 0.5)],
            ["click", "1"],
            ["mousemove", *at("density.slider", 0.4)],
            ["mousedown", "1"],
            ["mousemove", *at("density.slider", 0.6)],
            ["mousemove", *at("density.slider", 0.9)],
            ["mouseup", "1"],
            ["key", "ctrl+s"],
        ):
            xdotool(*words)
            time.sleep(0.4)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            density = Profile.load(profile).layers[2].heads[0].density
            if density is not None:
                break
            time.sleep(0.2)
        assert density is not None, "what xdotool dragged never reached the file"
        assert 0.8 < density <= 1.0
        # On a busy machine xdotool's Ctrl+Q is not always heard, for a cause that is not found yet:
        # the window must have ended well or still be there.
        xdotool("windowfocus", "--sync", window[0])
        xdotool("key", "ctrl+q")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)
        assert process.poll() in (0, None)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_layout_and_recent_files_are_kept(run, profile, tmp_path, display):
    run(f"open {profile}\nwait\n", headless=False, display=display)
    layout = tmp_path / "config" / "layout.ini"
    assert "[Docking][Data]" in layout.read_text()
    # Without a file the welcome page offers the recent ones.
    script = "frames 3\nprint open\nclick recent.0\nwait\nexpect heads == 6\n"
    done = run(script, headless=False, display=display)
    assert "open = false" in done.stdout
