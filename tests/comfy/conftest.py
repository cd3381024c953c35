"""The real ComfyUI for tests, in process and as a server.

Where ComfyUI is not to be found the tests are skipped, except under run.py, which sets
PARO_REQUIRE_COMFY=1: there its absence is a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

# Scripts of the viewer's interface (tests/viewer/sessions.py) are passed in the page too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "viewer"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))
sys.path.insert(0, str(Path(__file__).parent))

import comfy_server

COMFYUI = comfy_server.find_comfyui()
BASE = Path(tempfile.mkdtemp(prefix="paro-comfy-"))


def start_in_process() -> None:
    """ComfyUI takes its folders from its arguments at import, once: so before any test module."""
    os.environ["COMFYUI_DIR"] = str(COMFYUI)
    comfy_server.make_base(BASE)
    sys.path.insert(0, str(COMFYUI))
    # It also reads the command line then, which is pytest's.
    sys.argv, kept = [sys.argv[0]], sys.argv
    from comfy.cli_args import args

    sys.argv = kept
    args.cpu = True
    args.use_pytorch_cross_attention = True
    args.disable_api_nodes = True
    args.base_directory = str(BASE)
    # As main.py does: nodes.py puts comfy/ first on the path, and its utils.py would hide this.
    import utils.extra_config  # noqa: F401


if COMFYUI is not None:
    start_in_process()


def pytest_ignore_collect(collection_path):
    """Without ComfyUI the modules cannot even be imported; test_comfyui.py says so."""
    return True if COMFYUI is None and collection_path.name != "test_comfyui.py" else None


def pytest_sessionfinish():
    shutil.rmtree(BASE, ignore_errors=True)


@pytest.fixture(scope="session")
def comfyui_dir() -> Path:
    if COMFYUI is None:
        text = "no ComfyUI: set COMFYUI_DIR, or run `python3 run.py test`, which fetches one"
        (pytest.fail if os.environ.get("PARO_REQUIRE_COMFY") else pytest.skip)(text)
    return COMFYUI


@pytest.fixture(scope="session")
def comfy(comfyui_dir) -> SimpleNamespace:
    """ComfyUI in this process, on the CPU, with our plugin loaded by ComfyUI's own loader.

    Has `base`, `nodes` (the module), `NODES` (id to class) and `call(id, **inputs)`, which runs a
    node of either API and returns its outputs as a tuple.
    """
    import nodes

    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
    found = nodes.NODE_CLASS_MAPPINGS

    def call(node_id: str, **inputs) -> tuple:
        node = found[node_id]
        if hasattr(node, "define_schema"):
            return tuple(node.EXECUTE_NORMALIZED(**inputs).result or ())
        out = getattr(node(), node.FUNCTION)(**inputs)
        return tuple(out["result"] if isinstance(out, dict) else out)

    return SimpleNamespace(base=BASE, nodes=nodes, NODES=found, call=call)


@pytest.fixture(scope="module")
def model():
    """A Wan of random weights, the test module's own."""
    import harness

    return harness.tiny_wan()


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """ComfyUI's folders and the plugin's state, a test's own."""
    import harness

    return harness.Folders(monkeypatch, tmp_path)


@pytest.fixture
def sent(monkeypatch):
    """(event, data) of all that a server would send; the node has the id 7."""
    import harness

    messages = []

    def send(event, data, sid=None):
        messages.append((event, json.loads(json.dumps(data, allow_nan=False))))

    server = SimpleNamespace(send_sync=send, client_id=None)
    for module in ("panel", "routes"):
        part = harness.part(module)
        monkeypatch.setattr(part.PromptServer, "instance", server, raising=False)
    patch = harness.part("patch")
    plain = patch.Request
    monkeypatch.setattr(patch, "Request", lambda *a, **kw: _with_id(plain, *a, **kw))
    return messages


def _with_id(request, settings, profile="auto", save_as="", node_id=None):
    return request(settings, profile, save_as, node_id or "7")


@pytest.fixture
def set_by_user(monkeypatch, tmp_path):
    """set_by_user(few_steps=8, ...) writes a user's settings file, and returns its path. Until then
    there is none, and the defaults hold."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return lambda **values: comfy_server.write_settings(tmp_path / "user", values)


@pytest.fixture(scope="session")
def locales(tmp_path_factory) -> Path:
    """Locales that this system need not have, made for these tests alone."""
    import subprocess

    from strange import require

    require("localedef", "libc-bin")
    folder = tmp_path_factory.mktemp("locales")
    for name in ("de_DE", "tr_TR"):
        made = folder / f"{name}.UTF-8"
        command = ["localedef", "-i", name, "-f", "UTF-8", str(made)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if not (made / "LC_NUMERIC").is_file():
            pytest.fail(f"no locale {name} (apt-get install locales): {ended.stderr[:300]}")
    return folder


@pytest.fixture(scope="session")
def comfy_live(comfyui_dir, tmp_path_factory):
    """A running server with our plugin, shared by all tests. `server.base` is its folder."""
    base = comfy_server.make_base(tmp_path_factory.mktemp("server") / "base")
    log = base.parent / "server.log"
    with comfy_server.ComfyServer(comfyui_dir, base, log) as server:
        yield server


@pytest.fixture(scope="module")
def page(comfy_live):
    """The server's page in a real browser, a test module's own tab."""
    import browser

    program = browser.find_chromium()
    if program is None:
        pytest.skip("no chromium")
    with browser.Browser(program) as tab:
        tab.open(comfy_live.url)
        tab.wait("window.app?.graph && window.app.extensionManager && window.paro", 120)
        yield tab
