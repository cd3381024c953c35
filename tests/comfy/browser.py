"""Chromium without a window, driven through its DevTools protocol: what the page tests need of it.

aiohttp comes with ComfyUI, so nothing has to be installed but the browser itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    named = os.environ.get("PARO_CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """`with Browser(...) as page:` - one tab. All calls block; errors in scripts are raised."""

    def __init__(self, program: str, size=(1500, 1000)):
        self.program, self.size = program, size
        self.folder = Path(tempfile.mkdtemp(prefix="paro-chromium-"))
        self.downloads = self.folder / "downloads"
        self.log: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._id = 0

    def __enter__(self) -> Browser:
        self.downloads.mkdir()
        command = [self.program, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={self.folder / 'profile'}"]
        command += [f"--window-size={self.size[0]},{self.size[1]}", "--lang=en-US", "about:blank"]
        with open(self.folder / "log", "wb") as log:
            self._child = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._run(self._connect())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            if hasattr(self, "_session"):
                self._run(self._session.close())
        finally:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, work):
        return self._loop.run_until_complete(work)

    async def _connect(self) -> None:
        port_file = self.folder / "profile" / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port_file.is_file() and port_file.read_text().strip()):
            if time.monotonic() > end or self._child.poll() is not None:
                raise RuntimeError(f"Chromium did not start: {(self.folder / 'log').read_text()}")
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = [t for t in await answer.json() if t["type"] == "page"]
        self._socket = await self._session.ws_connect(
            targets[0]["webSocketDebuggerUrl"], max_msg_size=0
        )
        for domain in ("Page", "Runtime", "DOM"):
            await self._call(f"{domain}.enable")
        folder = {"behavior": "allow", "downloadPath": str(self.downloads)}
        await self._call("Browser.setDownloadBehavior", **folder)

    async def _call(self, method: str, **parameters):
        self._id += 1
        await self._socket.send_json({"id": self._id, "method": method, "params": parameters})
        async with asyncio.timeout(120):
            while True:
                message = json.loads((await self._socket.receive()).data)
                if message.get("method") == "Runtime.exceptionThrown":
                    self.log.append(json.dumps(message["params"])[:500])
                if message.get("method") == "Page.javascriptDialogOpening":
                    await self._leave(message["params"])
                if message.get("id") == self._id:
                    if "error" in message:
                        raise RuntimeError(f"{method}: {message['error']}")
                    return message["result"]

    async def _leave(self, dialog: dict) -> None:
        """A page with unsaved changes asks before it is left; tests leave it."""
        if dialog["type"] == "beforeunload":
            answer = {"method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            await self._socket.send_json({"id": 0, **answer})

    def call(self, method: str, **parameters):
        return self._run(self._call(method, **parameters))

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def js(self, script: str):
        """The value of an expression, a promise awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:800])
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60):
        """Until the expression is true; its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                value = self.js(script)
            except RuntimeError as error:
                value = None
                if time.monotonic() > end:
                    raise TimeoutError(f"{script}: {error}") from error
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {script}")
            time.sleep(0.1)

    def click(self, selector: str, text: str = "") -> None:
        """A real click in the middle of the first visible match that holds the text."""
        place = self.wait(
            f"""(() => {{
              const all = [...document.querySelectorAll({json.dumps(selector)})]
              const one = all.find((e) => e.offsetParent !== null
                && e.textContent.includes({json.dumps(text)}))
              if (!one) return null
              one.scrollIntoView({{block: 'center'}})
              const box = one.getBoundingClientRect()
              return [box.x + box.width / 2, box.y + box.height / 2]
            }})()""",
            30,
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
