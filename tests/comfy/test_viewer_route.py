"""What the viewer's route starts: a fixed program with one path of ours, and not without end."""

import asyncio

import harness
import pytest
from aiohttp.test_utils import TestClient, TestServer


@pytest.fixture
def module():
    return harness.part("routes")


@pytest.fixture
def started(module, monkeypatch, tmp_path):
    """The commands of viewers, none of which really starts."""
    commands = []

    class Viewer:
        def __init__(self, command, **options):
            assert options["start_new_session"] and "shell" not in options
            commands.append(command)

        def poll(self):
            return None

    viewers = module.paro.desktop_viewer
    monkeypatch.setattr(viewers.subprocess, "Popen", Viewer)
    monkeypatch.setattr(viewers, "program", lambda: "/opt/paro-viewer")
    monkeypatch.setattr(viewers, "_open", [])
    monkeypatch.setenv("DISPLAY", ":99")
    return commands


def view(module, name, count=1):
    """Statuses of `count` requests in a row, through the real handlers."""
    from aiohttp import web

    async def run():
        table = web.RouteTableDef()
        module.register(table)
        app = web.Application()
        app.add_routes(table)
        async with TestClient(TestServer(app)) as client:
            answers = []
            for _ in range(count):
                answer = await client.post("/paro/view", json={"name": name})
                answers.append((answer.status, await answer.json()))
            return answers

    return asyncio.run(run())


@pytest.fixture
def saved(folders):
    harness.sample(harness.paro(harness.tiny_wan(), save_as="seen"), steps=2)
    return folders


def test_the_capture_where_there_is_one(module, saved, started):
    assert view(module, "seen") == [(200, {"name": "seen"})]
    capture = saved.profiles / "seen.capture.safetensors"
    assert started == [["/opt/paro-viewer", str(capture)]]
    capture.unlink()
    view(module, "seen")
    assert started[1] == ["/opt/paro-viewer", str(saved.profiles / "seen.json")]


def test_no_more_than_eight(module, saved, started):
    statuses = [status for status, _ in view(module, "seen", 10)]
    assert statuses == [200] * 8 + [429] * 2 and len(started) == 8


def test_without_a_viewer(module, saved, started, monkeypatch):
    monkeypatch.setattr(module.paro.desktop_viewer, "program", lambda: None)
    ((status, answer),) = view(module, "seen")
    assert status == 501 and "paro-viewer" in answer["error"] and not started


def test_without_a_display(module, saved, started, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    ((status, answer),) = view(module, "seen")
    assert status == 501 and "display" in answer["error"] and not started


def test_without_the_native_library(module, saved, monkeypatch):
    monkeypatch.setattr(module, "paro", None)
    ((status, answer),) = view(module, "seen")
    assert status == 501 and set(answer) == {"error"}
