"""Everything that the viewer draws can be read, at every size of window and text people have."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pictures
import pytest
from conftest import make_profile
from test_window import display  # noqa: F401

NAMES = ("plain", "full", "low", "long", "small", "compared", "empty")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    made = pictures.samples(tmp_path_factory.mktemp("samples"))
    assert tuple(sample.name for sample in made) == NAMES
    return {sample.name: sample for sample in made}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_covered_or_on_something_else(viewer, samples, name):
    problems = pictures.check(str(viewer), samples[name], pictures.SIZES)
    assert not problems, problems


def test_a_small_laptop_with_large_text(viewer, samples):
    problems = pictures.check(str(viewer), samples["full"], [(1366, 768, 1.25)])
    assert not problems, problems


def test_a_window_moved_between_monitors_stays_readable(run, profile):
    """Another scale comes while the window is open; and back."""
    lines = [f"open {profile}", "wait"]
    for size in ("1920 1080 1", "3840 2160 2", "1366 768 1.25", "1920 1080 1"):
        lines += [f"resize {size}", "frames 8", "readable moved"]
    done = run("\n".join(lines) + "\n", "--undrawn")
    assert "4 expectations" in done.stdout


# The check itself: a text is put where it must not be.


@pytest.mark.parametrize(
    "note, faults",
    [
        ("density.slider 0.1 another text over this one", ["stand on each other", "covered by"]),
        ("density.slider -2 " + "a text beyond the edge of the window " * 3, ["cut off sideways"]),
        ("panel.profile 0.99 below the lower edge", ["cut off above or below"]),
    ],
)
def test_a_text_in_the_wrong_place_is_seen(run, profile, note, faults):
    script = f"open {profile}\nwait\nreadable before\nnote {note}\nreadable after\n"
    done = run(script, fails=True)
    assert done.stderr.count("FAILED") == 1, done.stderr
    for fault in faults:
        assert fault in done.stderr
    assert " ".join(note.split()[2:4]) in done.stderr


def test_what_is_drawn_is_known_word_by_word(run, profile):
    done = run(f"open {profile}\nwait\ntexts\n")
    lines = [line.split(" ", 5) for line in done.stdout.splitlines() if line.startswith("text ")]
    places = {words[5]: [int(word) for word in words[1:5]] for words in lines}
    for text in ("wan.json", "this head", "What ran", "follows the default"):
        assert text in places
    left, top, right, bottom = places["wan.json"]
    assert 0 < left < right < 640
    assert 0 < top < bottom < 80


FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")


def test_letters_that_our_font_lacks_come_from_another(run, tmp_path):
    if not FONT.is_file():
        pytest.skip("DejaVu is not installed")
    name = "\u10e5\u10d0\u10e0\u10d7"  # Georgian
    profile = make_profile(tmp_path, name)
    script = f"open {profile}\nwait\nframes 4\ntexts\nreadable\n"
    assert f"{name}.json" in run(script, env={"PARO_VIEWER_FONT": str(FONT)}).stdout
    without = run(script, env={"PARO_VIEWER_FONT": str(tmp_path / "none.ttf")}).stdout
    assert "????.json" in without
    bad = tmp_path / "bad.ttf"
    bad.write_bytes(b"no font" * 100)
    assert "????.json" in run(script, env={"PARO_VIEWER_FONT": str(bad)}).stdout


# Where it cannot start it says what to do.


def start(viewer, *arguments, **environment):
    env = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", **environment}
    done = subprocess.run(
        [str(viewer), *map(str, arguments)], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, "one line"
    return done.stderr


def test_wayland_without_xwayland(viewer):
    text = start(viewer, WAYLAND_DISPLAY="wayland-0")
    assert "XWayland" in text and "apt install xwayland" in text and "--headless" in text


def test_no_display_at_all(viewer):
    text = start(viewer)
    assert "DISPLAY" in text and "ssh -X" in text and "--headless" in text


def test_a_display_that_is_not_there(viewer):
    text = start(viewer, DISPLAY=":987")
    assert ":987" in text and "XAUTHORITY" in text and "--headless" in text


def test_old_opengl(viewer, display):  # noqa: F811
    old = {"MESA_GL_VERSION_OVERRIDE": "2.1", "LIBGL_ALWAYS_SOFTWARE": "1"}
    for arguments in ((), ("--headless",)):
        text = start(viewer, *arguments, DISPLAY=display, **old)
        assert "OpenGL 3.3" in text or "version 3.3" in text
        assert "apt install" in text


def test_without_egl_windows_still_open_and_headless_says_what_to_install(viewer, tmp_path):
    (tmp_path / "libEGL.so.1").write_bytes(b"")
    text = start(viewer, "--headless", LD_LIBRARY_PATH=str(tmp_path))
    assert "EGL" in text and "libegl1" in text
    if shutil.which("readelf"):
        needed = subprocess.run(
            ["readelf", "-d", str(viewer)], capture_output=True, text=True, env=os.environ
        ).stdout
        assert "libEGL" not in needed
