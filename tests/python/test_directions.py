"""Who uses whom goes one way: imports and includes are read, and an edge against it fails.

docs/architecture.md has the picture.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "native" / "python" / "paroattention"
# Lowest first; modules of the package itself are the base. bench stands beside cli.
LAYERS = (
    *("base", "kernels", "learn", "plan", "parallel", "run"),
    *("diffusers", "raylight", "cli", "bench"),
)
# (folder, what may be included from there), each by the beginning of an include.
INCLUDES = {
    "native/core": ("paro/", "files/", "grid/", "mass/", "profile/", "plan/", "cpu/"),
    "viewer/document": ("paro/", "document/"),
    "viewer/panels": ("paro/", "document/", "panels/", "imgui", "implot"),
}
# Of the CUDA side: no torch, no Python.
FOREIGN = {
    "native/core": ("cuda", "torch", "pybind11", "Python.h", "imgui", "GLFW"),
    "native/cuda": ("torch", "pybind11", "Python.h", "imgui", "GLFW"),
    "viewer": ("cuda", "torch", "pybind11", "Python.h"),
    # What both fronts share knows neither, and they do not know each other.
    "viewer/app": ("GLFW", "EGL", "emscripten", "imgui_impl", "desktop/", "web/"),
    "viewer/panels": ("app/", "desktop/", "web/"),
    "viewer/desktop": ("emscripten", "GLES", "web/"),
    "viewer/web": ("GLFW", "EGL", "desktop/"),
}
# The host's modules; only nodes, and benches that run it, know them.
HOST = {"comfy", "server", "folder_paths", "nodes", "execution", "comfy_api", "comfy_execution"}


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _layer(parts: tuple[str, ...]) -> str:
    """Of a module path below the package."""
    return parts[0] if parts and parts[0] in LAYERS else "base"


def _imports(path: Path):
    """(line, absolute dotted module, names) of each import; relative ones resolved."""
    inside = (
        path.relative_to(PACKAGE.parent).with_suffix("").parts if PACKAGE in path.parents else ()
    )
    package = inside[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield node.lineno, one.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield node.lineno, module, tuple(one.name for one in node.names)


def _targets(module: str, names: tuple[str, ...]):
    """Modules of the package that an import reaches, as paths below it."""
    parts = tuple(module.split("."))
    if parts[0] != "paroattention":
        return
    for name in names or ("",):
        below = (*parts[1:], name) if name else parts[1:]
        file, folder = PACKAGE.joinpath(*below).with_suffix(".py"), PACKAGE.joinpath(*below)
        yield below if name and (file.exists() or folder.is_dir()) else parts[1:]


def upward(path: Path) -> list[str]:
    """Imports of a module of the package that reach a higher layer."""
    own = path.relative_to(PACKAGE).with_suffix("").parts
    if own == ("__init__",) or own == ("__main__",):
        return []
    mine, told = LAYERS.index(_layer(own)), []
    for line, module, names in _imports(path):
        for target in _targets(module, names):
            if LAYERS.index(_layer(target)) > mine and _layer(own) != "bench":
                told.append(f"{path.name}:{line} imports {'.'.join(target)}")
    return told


@pytest.mark.parametrize("path", _modules(PACKAGE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_layer_uses_those_below_it(path):
    assert upward(path) == []


def test_an_edge_against_it_would_be_seen(tmp_path, monkeypatch):
    package = tmp_path / "paroattention"
    for name in ("kernels", "run"):
        (package / name).mkdir(parents=True)
    (package / "run" / "session.py").write_text("")
    module = package / "kernels" / "cuda.py"
    monkeypatch.setattr("test_directions.PACKAGE", package)
    for source in (
        "from ..run import session\n",
        "from ..run.session import Session\n",
        "from paroattention.run import session\n",
        "import paroattention.run.session\n",
    ):
        module.write_text(source)
        assert len(upward(module)) == 1, source
    module.write_text("from . import plan_store\nfrom .. import _core, layout\n")
    assert upward(module) == []


def test_only_nodes_know_the_host():
    told = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _modules(PACKAGE)
        if not (path.parent.name == "bench" and path.name.startswith("comfy"))
        for line, module, _ in _imports(path)
        if module.split(".")[0] in HOST
    ]
    assert told == []


@pytest.mark.parametrize("folder", ["comfy_nodes", "tools"])
def test_private_names_stay_in_their_package(folder):
    """Such as session._x and paro._core."""
    told = []
    for path in _modules(ROOT / folder):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Attribute) and node.attr.startswith("_")):
                continue
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr.startswith("__"):
                continue
            if owner in ("paro", "session", "paroattention") or ".session" in ast.unparse(
                node.value
            ):
                told.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert told == []


def _included(folder: str):
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".h", ".cpp", ".cu", ".cuh"):
            found = re.finditer(r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(), re.MULTILINE)
            yield from ((path, one[1] == '"', one[2]) for one in found)


@pytest.mark.parametrize("folder", INCLUDES)
def test_sources_include_what_lies_below_them(folder):
    own = {path.name for path in (ROOT / folder).rglob("*.h")}
    told = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path, quoted, name in _included(folder)
        if quoted and not name.startswith(INCLUDES[folder]) and name not in own
    ]
    assert told == []


@pytest.mark.parametrize("folder", FOREIGN)
def test_sources_do_not_reach_for_what_they_must_not_know(folder):
    told = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path, _, name in _included(folder)
        if name.startswith(FOREIGN[folder])
        and not (folder == "native/cuda" and name.startswith("cuda"))
    ]
    assert told == []
