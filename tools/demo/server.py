"""A real ComfyUI server as a child process: start, queue a workflow, watch it run, stop."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tools.setup.steps import end_process, log_tail

# What a user's custom_nodes/comfyui-paroattention holds.
PLUGIN_PARTS = ("__init__.py", "comfy_nodes", "profiles", "pyproject.toml", "LICENSE")
PLUGIN_NAME = "comfyui-paroattention"
START_SECONDS = 180.0
IDLE_SECONDS = 300.0  # without a word from the server while a workflow runs

Event = Callable[[str, dict], None]


class ServerError(Exception):
    """The server did not start, refused a workflow, or a node failed."""


@dataclass
class Result:
    prompt_id: str
    outputs: dict = field(default_factory=dict)  # by node id, as in /history
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by node id


def prepare_base(base: Path, repo: Path, extra_nodes: list[Path], models: dict[str, Path]) -> None:
    """An empty ComfyUI base directory with our plugin in it, as a user would install it.

    `models` maps a path below models/ to the file to copy there.
    """
    shutil.rmtree(base, ignore_errors=True)
    for name in ("custom_nodes", "models", "input", "output", "temp", "user/default"):
        (base / name).mkdir(parents=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
    plugin = base / "custom_nodes" / PLUGIN_NAME
    plugin.mkdir()
    for part in PLUGIN_PARTS:
        copy(repo / part, plugin / part)
    for folder in extra_nodes:
        copy(folder, base / "custom_nodes" / folder.name)
    for name, source in models.items():
        copy(source, base / "models" / name)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copy2(source, target)


class ComfyServer:
    """`with ComfyServer(comfyui, base, log) as server:` - up when the block begins, gone after.

    arguments: ComfyUI's own. before: a command that starts the one behind it in its own place.
    """

    def __init__(
        self,
        comfyui: Path,
        base: Path,
        log: Path,
        arguments: tuple[str, ...] = (),
        before: tuple[str, ...] = (),
    ):
        self.comfyui, self.base, self.log = comfyui, base, log
        self.arguments, self.before = arguments, before
        self.port = 0
        self._child: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        self.port = free_port()
        command = [*self.before, sys.executable, str(self.comfyui / "main.py"), "--cpu"]
        command += ["--use-pytorch-cross-attention", "--listen", "127.0.0.1"]
        command += ["--port", str(self.port), "--base-directory", str(self.base)]
        command += ["--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
        command += ["--disable-api-nodes", *self.arguments]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            self._child = subprocess.Popen(
                command, cwd=self.comfyui, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _wait_until_up(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            self.check_alive()
            try:
                self.get("/system_stats", timeout=2)
                return
            except (OSError, ValueError):
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer within {START_SECONDS:.0f} s{self._said()}")

    def stop(self) -> None:
        if self._child is not None:
            end_process(self._child)
            self._child = None

    def check_alive(self) -> None:
        if self._child is None:
            raise ServerError("ComfyUI's server was not started")
        if self._child.poll() is not None:
            raise ServerError(f"ComfyUI's server ended ({self._child.returncode}){self._said()}")

    def _said(self) -> str:
        return "; the end of " + "\n    ".join([f"{self.log}:", *log_tail(self.log)])

    # Requests

    def get(self, path: str, timeout: float = 30) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict, timeout: float = 30) -> dict:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ServerError(refusal(error.read())) from None
        return json.loads(text) if text.strip() else {}

    def run(self, workflow: dict, on_event: Event | None = None) -> Result:
        """Queues a workflow in the API format and waits for its end. Throws ServerError."""
        return asyncio.run(self._run(workflow, on_event or (lambda kind, data: None)))

    async def _run(self, workflow: dict, on_event: Event) -> Result:
        client = uuid.uuid4().hex
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0) as socket_,
        ):
            queued = await asyncio.to_thread(
                self.post, "/prompt", {"prompt": workflow, "client_id": client}
            )
            result = Result(queued["prompt_id"])
            await self._watch(socket_, result, on_event)
        # The history is written just after the last message.
        for _ in range(100):
            history = await asyncio.to_thread(self.get, f"/history/{result.prompt_id}")
            if result.prompt_id in history:
                result.outputs = history[result.prompt_id]["outputs"]
                return result
            await asyncio.sleep(0.05)
        raise ServerError("ComfyUI finished a workflow but does not list it in its history")

    async def _watch(self, socket_, result: Result, on_event: Event) -> None:
        node, since = None, time.monotonic()
        while True:
            kind, data = await self._next_message(socket_)
            if data.get("prompt_id", result.prompt_id) != result.prompt_id:
                continue
            on_event(kind, data)
            if kind == "executing":
                now = time.monotonic()
                if node is not None:
                    result.seconds[node] = result.seconds.get(node, 0.0) + now - since
                node, since = data.get("node"), now
                if node is None:
                    return
            elif kind == "execution_error":
                where = f"{data.get('node_type')} (node {data.get('node_id')})"
                why = f"{data.get('exception_type')}: {data.get('exception_message', '').strip()}"
                raise ServerError(f"{where} failed: {why}; details in {self.log}")
            elif kind == "execution_interrupted":
                raise ServerError("the workflow was interrupted")

    async def _next_message(self, socket_) -> tuple[str, dict]:
        end = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < end:
            try:
                message = await socket_.receive(timeout=5)
            except asyncio.TimeoutError:
                self.check_alive()
                continue
            if message.type == aiohttp.WSMsgType.TEXT:
                parsed = json.loads(message.data)
                return parsed.get("type", ""), parsed.get("data") or {}
            if message.type != aiohttp.WSMsgType.BINARY:
                self.check_alive()
                raise ServerError(f"ComfyUI closed the connection{self._said()}")
        raise ServerError(f"ComfyUI sent nothing for {IDLE_SECONDS:.0f} s{self._said()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refusal(body: bytes) -> str:
    """ComfyUI's answer to a workflow that it does not accept, in one line."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"ComfyUI refused the workflow: {body[:500].decode(errors='replace')}"
    parts = [answer.get("error", {}).get("message", "")]
    for node, errors in (answer.get("node_errors") or {}).items():
        for error in errors.get("errors", []):
            parts.append(
                f"{errors.get('class_type')} (node {node}): {error.get('message')}: "
                f"{error.get('details')}"
            )
    return "ComfyUI refused the workflow: " + "; ".join(part for part in parts if part)
