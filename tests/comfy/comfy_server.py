"""The real ComfyUI for tests: where it lies, a base directory of its own, a server, workflows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
if str(REPO) not in sys.path:
    sys.path.append(str(REPO))

from tools.demo.server import (  # noqa: E402
    PLUGIN_NAME,
    ComfyServer,
    Result,
    ServerError,
    copy,
    prepare_base,
)
from tools.setup.comfyui import VERSION, is_comfyui  # noqa: E402

__all__ = [
    "DEMO_NODES",
    "MODEL",
    "PLUGIN_NAME",
    "REPO",
    "ComfyServer",
    "Result",
    "ServerError",
    "find_comfyui",
    "make_base",
    "read_runlog",
    "small",
    "workflow",
    "write_settings",
]

MODEL = REPO / "assets" / "model" / "paro-wan-tiny.safetensors"
DEMO_NODES = REPO / "tools" / "demo" / "nodes" / "paro_demo"


def find_comfyui() -> Path | None:
    """COMFYUI_DIR, else what run.py fetched, else None."""
    named = os.environ.get("COMFYUI_DIR")
    cache = Path(os.environ.get("PARO_CACHE") or REPO / ".cache")
    folder = Path(named) if named else cache / f"comfyui-{VERSION}"
    return folder.resolve() if is_comfyui(folder) else None


def make_base(base: Path) -> Path:
    """A base directory with the plugin, the demo's nodes and the bundled model in it."""
    prepare_base(base, REPO, [DEMO_NODES], {f"diffusion_models/{MODEL.name}": MODEL})
    for part in ("locales", "example_workflows"):
        copy(REPO / part, base / "custom_nodes" / PLUGIN_NAME / part)
    # Tiny models gain little, and their runs are short: the limits that would keep them dense are
    # tested on their own (test_policy.py).
    write_settings(base / "user", {"few_steps": 0, "least_gain": 0})
    return base


def write_settings(user: Path, values: dict) -> Path:
    """Writes the settings file of our plugin into ComfyUI's user folder; returns its path."""
    file = user / "__paro" / "settings.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")
    return file


def workflow(name: str, /, *, sampler: dict | None = None, **node) -> dict:
    """One of tools/demo/workflows; `sampler` changes the KSampler's inputs, the rest our node's."""
    path = REPO / "tools" / "demo" / "workflows" / f"{name}.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    graph["6"]["inputs"] |= sampler or {}
    if node:
        graph["3"]["inputs"] |= node
    return graph


def small(graph: dict, steps: int = 3) -> dict:
    """The same graph on 4 x 8 x 11 tokens and few steps, so that it takes a second."""
    graph["5"]["inputs"] |= {"width": 176, "height": 128, "length": 13}
    graph["6"]["inputs"]["steps"] = steps
    return graph


def read_runlog(base: Path) -> list[list[dict]]:
    """The lines of every run in a base directory's run log, oldest run first."""
    path = base / "output" / "paro" / "runlog.jsonl"
    if not path.is_file():
        return []
    runs: list[list[dict]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "run" in line and "end" not in line and "step" not in line:
            runs.append([])
        runs[-1].append(line)
    return runs
