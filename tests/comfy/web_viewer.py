"""The viewer in a page, driven as a hand does: real mouse and key events of the browser."""

from __future__ import annotations

import json
import os
import time
from urllib.parse import quote

import pytest
from paroattention import web_viewer

# Windows' codes of keys, without which Chromium takes no key for one.
CODES = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Enter": 13, "F1": 112}
CODES |= {"Escape": 27, "Delete": 46}
CTRL = 2


def require_built() -> None:
    """Skips, or under run.py fails, where no viewer for the page was built."""
    text = web_viewer.problem()
    if text:
        (pytest.fail if os.environ.get("PARO_REQUIRE_WEB_VIEWER") else pytest.skip)(text)


class Viewer:
    """The viewer in a tab, or in a frame of it: `window` is the JavaScript that has its window."""

    def __init__(self, page, window: str = "window"):
        self.page, self.window = page, window

    def open(self, server, name: str | None = None) -> None:
        query = f"?profile={quote(name, safe='')}" if name else ""
        self.page.open(f"{server.url}/paro/viewer/viewer.html{query}")
        self.wait_ready(name)

    def wait_ready(self, name: str | None) -> None:
        self.page.wait(f"{self.window}?.paro?.ready?.()", 30)
        if name:
            self.until("open", "true")
            self.page.wait(f"{self.window}.paro.query('path') === {json.dumps(name + '.json')}")

    def query(self, what: str) -> str:
        return self.page.js(f"{self.window}.paro.query({json.dumps(what)})")

    def until(self, what: str, value: str, seconds: float = 30) -> None:
        """Until a value is this one, or holds it (messages)."""
        end = time.monotonic() + seconds
        while True:
            got = self.query(what)
            if got == value or (what == "messages" and value in got):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: wanted {value!r}, got {got!r}")
            time.sleep(0.05)

    def run(self, script: str, seconds: float = 240) -> str:
        """A script of viewer/app/script.h; it must pass."""
        assert self.page.js(f"{self.window}.paro.run({json.dumps(script)})") == ""
        told = self.page.wait(
            f"(() => {{ const s = {self.window}.paro.state(); return s !== 'running' && s }})()",
            seconds,
        )
        assert told.startswith("ok"), told
        return told

    def place(self, name: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A point of a named place, in the tab's own pixels."""
        box = None
        end = time.monotonic() + 20
        while not box or len(box) != 4:
            box = self.page.js(f"{self.window}.paro.place({json.dumps(name)})")
            if time.monotonic() > end:
                raise TimeoutError(f"{name} is not shown")
        left, top, scale = self.page.js(
            f"""(() => {{ const w = {self.window}, f = w.frameElement?.getBoundingClientRect()
              return [f?.x ?? 0, f?.y ?? 0, w.devicePixelRatio] }})()"""
        )
        at = (box[0] + (box[2] - box[0]) * x) / scale, (box[1] + (box[3] - box[1]) * y) / scale
        return left + at[0], top + at[1]

    def mouse(self, kind: str, at: tuple[float, float], **more) -> None:
        self.page.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)

    def click(self, name: str, x: float = 0.5, y: float = 0.5) -> None:
        at = self.place(name, x, y)
        self.mouse("mouseMoved", at)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, at, button="left", clickCount=1)
            self.frames(2)

    def drag(self, name: str, x0: float, x1: float, steps: int = 10) -> None:
        begin, end = self.place(name, x0), self.place(name, x1)
        self.mouse("mouseMoved", begin)
        self.mouse("mousePressed", begin, button="left", clickCount=1)
        for i in range(1, steps + 1):
            x = begin[0] + (end[0] - begin[0]) * i / steps
            self.mouse("mouseMoved", (x, begin[1]), button="left", buttons=1)
            self.frames(1)
        self.mouse("mouseReleased", end, button="left", clickCount=1)
        self.frames(2)

    def frames(self, count: int) -> None:
        """Waits until so many were drawn: a hand is slower than that."""
        drawn = self.page.js(f"{self.window}.paro.frames()")
        self.page.wait(f"{self.window}.paro.frames() >= {drawn + count}", 10)

    def key(self, key: str, modifiers: int = 0) -> None:
        code = CODES.get(key) or ord(key.upper())
        names = {"key": key, "code": key if len(key) > 1 else f"Key{key.upper()}"}
        names |= {"windowsVirtualKeyCode": code, "modifiers": modifiers}
        text = {"text": key} if len(key) == 1 and not modifiers else {}
        self.page.call("Input.dispatchKeyEvent", type="keyDown", **names, **text)
        self.page.call("Input.dispatchKeyEvent", type="keyUp", **names)
        self.frames(2)

    # -- the server as the page sees it

    def block(self, words: str = "") -> None:
        """Requests whose address holds the words fail: all of them, as with a server that is gone,
        or these alone, with an error of the server's."""
        failing = "Promise.resolve(new Response('', {status: 503}))"
        if not words:
            failing = "Promise.reject(new TypeError('blocked'))"
        self.page.js(f"""(() => {{
          const w = {self.window}
          w.kept ??= w.fetch
          w.fetch = (url, options) => String(url).includes({json.dumps(words)})
            ? {failing} : w.kept.call(w, url, options)
        }})()""")

    def unblock(self) -> None:
        self.page.js(f"{self.window}.fetch = {self.window}.kept")
