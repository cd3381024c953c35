"""The viewer as a user has it: clicks, keys and drags through ImGui's own input, no display."""

from __future__ import annotations

import json
import struct
import subprocess
import threading
import time

import pytest
from conftest import make_profile
from paroattention import Profile, _core
from paroattention.__main__ import main
from sessions import FILTER, SESSION, ZOOM

PANELS = ("overview", "head", "density", "profile", "groups", "curves", "kernel", "ran")


def test_a_comparison_has_the_figures_of_the_command(run, profile, tmp_path, capsys):
    other = make_profile(tmp_path, "other", seed=1)
    assert main(["profile", "diff", str(profile), str(other), "--json"]) == 0
    heads = json.loads(capsys.readouterr().out)["heads"]
    names = ("a_by_a", "a_by_b", "b_by_b", "b_by_a")
    wanted = " ".join(f"{sum(head[name] for head in heads) / len(heads):.6f}" for name in names)
    changed = _core.diff_profiles(Profile.load(profile), Profile.load(other)).changed
    assert 0 < changed <= len(heads)
    run(
        f"open {profile}\nwait\ndialog compare\nclick dialog.name\ntype {other}\nclick dialog.ok\n"
        f"until differences == {changed}\nexpect compared == {wanted}\n"
    )


def test_a_session_by_mouse_and_keys(run, profile, tmp_path):
    other = make_profile(tmp_path, "other", seed=1)
    run(SESSION.format(profile=profile, other=other))
    saved = Profile.load(profile)
    first, second = saved.layers[0].heads
    assert (second.order, second.locked) == ("WHF", True)
    assert first.density == second.density
    assert first.density < 0.2
    assert saved.defaults.density > 0.5
    assert Profile.load(other).defaults.density == 0.3


def test_zoom_and_pan_are_linked_and_keys_change_the_view(run, profile):
    run(ZOOM.format(profile=profile))


def test_a_file_dropped_on_the_window_opens(run, profile):
    run(f"drop {profile}\nwait\nexpect open == true\nexpect heads == 6\n")


def test_heads_are_filtered(run, profile):
    run(FILTER.format(profile=profile))


@pytest.mark.parametrize("script", [SESSION, ZOOM, FILTER], ids=["session", "zoom", "filter"])
def test_without_threads_work_is_done_between_frames(run, profile, tmp_path, script):
    """As in a browser's page."""
    other = make_profile(tmp_path, "other", seed=1)
    run(script.format(profile=profile, other=other), "--threads", "0")


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("scale", [1, 2])
def test_every_panel_has_a_picture(run, profile, tmp_path, theme, scale):
    lines = [f"theme {theme}", f"resize {1280 * scale} {720 * scale} {scale}", f"open {profile}"]
    lines += ["wait", f"screenshot {tmp_path}/whole.png"]
    for panel in PANELS:
        lines += [f"maximise {panel}", "frames 3", f"screenshot {tmp_path}/{panel}.png {panel}"]
    run("\n".join(lines))
    assert png_size(tmp_path / "whole.png") == (1280 * scale, 720 * scale)
    for panel in PANELS:
        width, height = png_size(tmp_path / f"{panel}.png")
        assert width == 1280 * scale
        assert height > 500 * scale
        # A panel that draws nothing would compress to almost nothing.
        assert (tmp_path / f"{panel}.png").stat().st_size > 4000 * scale


def test_a_panel_is_saved_as_a_picture(run, profile, tmp_path):
    picture = tmp_path / "curves.png"
    run(f"""
open {profile}
wait
dialog export head
click dialog.name
key ctrl+a
type {picture}
click dialog.ok
until messages ~ curves.png
""")
    width, height = png_size(picture)
    assert 400 < width < 1280
    assert 200 < height < 720


def test_a_screenshot_from_the_command_line(viewer, profile, tmp_path):
    picture = tmp_path / "x.png"
    command = [str(viewer), str(profile), "--headless", "--screenshot", str(picture)]
    done = subprocess.run([*command, "--select", "2", "1"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert png_size(picture) == (1280, 720)


def test_what_is_remembered(run, profile, tmp_path):
    config = ("--config", tmp_path / "kept")
    run(f"theme light\nopen {profile}\nwait\n", *config)
    done = run("frames 2\nprint theme\n", *config)
    assert "theme = light" in done.stdout
    kept = json.loads((tmp_path / "kept" / "viewer.json").read_text())
    assert kept["recent"] == [str(profile)]


BAD = {
    "no JSON": ("hello", "JSON"),
    "cut off": (None, "JSON"),
    "another schema": ('{"schema": "paroattention/9"}', "schema"),
    "empty": ("", ""),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_told_of_and_the_program_goes_on(run, profile, tmp_path, what):
    text, place = BAD[what]
    bad = tmp_path / "bad.json"
    whole = profile.read_text()
    bad.write_text(whole[: len(whole) // 3] if text is None else text)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 40)
    script = f"open {bad}\nwait\nexpect open == false\nexpect messages ~ bad.json\n"
    script += f"expect messages ~ {place}\n" if place else ""
    script += f"open {tmp_path}/bad.safetensors\nwait\nexpect messages ~ bad.safetensors\n"
    script += f"open {tmp_path}/missing.json\nwait\nexpect messages ~ missing.json\n"
    run(script + f"open {profile}\nwait\nexpect heads == 6\nopen {bad}\nwait\nexpect heads == 6\n")


def test_a_bad_file_fails_a_screenshot(viewer, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    command = [str(viewer), str(bad), "--headless", "--screenshot", str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "bad.json" in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_a_profile_that_is_calibrated_meanwhile(run, profile):
    other = Profile.load(profile)
    calibration = other.calibration
    calibration.prompts = 7
    other.calibration = calibration
    whole = profile.read_text()

    def change():
        time.sleep(3)
        profile.write_text(whole[: len(whole) // 2])
        time.sleep(3)
        other.save(profile)

    thread = threading.Thread(target=change)
    thread.start()
    run(f"""
open {profile}
wait
until messages ~ stays
expect heads == 6
until messages ~ was read again
""")
    thread.join()


def test_a_place_that_cannot_be_written_offers_another(run, profile, tmp_path):
    run(f"""
open {profile}
wait
key ]
dialog save_as
click dialog.name
key ctrl+a
type /proc/edited.json
click dialog.ok
until messages ~ Not saved
expect modified == true
click message.save_as
frames 3
click dialog.name
key ctrl+a
type {tmp_path}/copy.json
click dialog.ok
until modified == false
expect path ~ copy.json
""")
    assert (tmp_path / "copy.json").is_file()


@pytest.mark.parametrize("headless", [True, False])
def test_no_opengl_is_a_clear_message(viewer, profile, headless):
    command = [str(viewer), str(profile), *(["--headless"] if headless else [])]
    env = {"PATH": "/usr/bin", "HOME": "/tmp", "MESA_GL_VERSION_OVERRIDE": "2.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 2
    assert "OpenGL 3.3" in done.stderr or "There is no display" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["--size", "9"],
        ["--panel", "nothing"],
        ["--scale", "99"],
        ["a", "b"],
        ["--theme"],
    ],
)
def test_wrong_usage(viewer, arguments):
    done = subprocess.run(
        [str(viewer), "--headless", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 64
    assert "--screenshot" in done.stderr


def test_a_failed_expectation_names_its_line(run, profile):
    done = run(f"open {profile}\nwait\nexpect heads == 7\n", fails=True)
    assert "line 3" in done.stderr
    assert 'got "6"' in done.stderr
