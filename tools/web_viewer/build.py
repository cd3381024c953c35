"""Builds the viewer for the page and packs it: gzip files with a list of their hashes.

Only gzip: browsers take brotli over HTTPS alone, and ComfyUI is mostly reached without.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

from ..setup import native, viewer
from ..setup.paths import REPO, Paths
from ..setup.steps import SetupError, hash_text, hash_tree, say, stage
from ..wheels.inputs import Inputs
from .toolchain import Toolchain

PAGE = REPO / "viewer" / "web" / "page"
BUILT = ("paro-viewer.js", "paro-viewer.wasm")
PAGE_FILES = ("viewer.html", "viewer.css", "viewer.js", "files.js", "input.js")
MANIFEST, LICENCE = "files.json", ".emscripten-licence.txt"
# What goes over the wire, all of it.
MOST_BYTES = 1_500_000
SOURCES = ("native/core", "viewer/app", "viewer/document", "viewer/panels", "viewer/web")
SINGLE = ("CMakeLists.txt", "viewer/embed_font.cmake")


def ensure(paths: Paths) -> Path:
    """The folder with the packed files."""
    folder = paths.build / "web-viewer"
    inputs = hash_text(hash_tree(REPO, [*SOURCES, *SINGLE]), hash_tree(REPO, ["tools/web_viewer"]))
    stage(folder / ".paro-stamp", inputs, lambda: build(paths, folder, inputs))
    return folder


def packed(folder: Path) -> dict[str, Path]:
    """What a wheel holds of the folder, by the names in the package."""
    return {f"web/{path.name}": path for path in sorted(folder.iterdir()) if path.name[0] != "."}


def compiler(folder: Path) -> str:
    """What the files were made with: "Emscripten" and its version."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["compiler"]


def install(paths: Paths) -> Path:
    """Copies the files to where the library looks for them: the installed package's, else the
    sources'."""
    library = native.installed_package(paths) or REPO / "native" / "python" / "paroattention"
    target = library / "web"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ensure(paths), target, ignore=shutil.ignore_patterns(".*"))
    return target


def build(paths: Paths, folder: Path, inputs: str) -> None:
    tools = Toolchain(paths)
    say(f"The viewer for the page, by {tools.name}")
    copy_sources(paths, tools)
    seen = tools.seen
    configure = ["emcmake", "cmake", "-G", "Ninja", "-S", f"{seen}/source", "-B", f"{seen}/build"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", "-DPARO_BUILD_WEB=ON"]
    configure += [f"-DPARO_IMGUI_DIR={seen}/libraries/imgui"]
    configure += [f"-DPARO_IMPLOT_DIR={seen}/libraries/implot"]
    configure += [f"-DPARO_ZLIB_SOURCE={seen}/libraries/zlib"]
    configure += [f"-Dnlohmann_json_DIR={seen}/libraries/json/share/cmake/nlohmann_json"]
    tools.run("configuring", configure)
    jobs = str(os.cpu_count() or 1)
    tools.run("building", ["cmake", "--build", f"{seen}/build", "--parallel", jobs])
    pack(tools.work / "build" / "viewer" / "web", folder, inputs, f"Emscripten {tools.version()}")
    shutil.copyfile(tools.licence(), folder / LICENCE)


def copy_sources(paths: Paths, tools: Toolchain) -> None:
    """What is compiled, to where the compiler sees it. Files that are the same keep their time."""
    source, libraries = tools.work / "source", tools.work / "libraries"
    for name in SOURCES:
        mirror(REPO / name, source / name)
    for name in SINGLE:
        copy_changed(REPO / name, source / name)
    viewer.ensure_libraries(paths, pinned=True)
    bundle = viewer.library_folder(paths)
    for name in ("imgui", "implot"):
        mirror(bundle / name / name, libraries / name)
    mirror(Inputs(paths).zlib(), libraries / "zlib")
    # Its headers alone: a compiler for another system must not look into /usr/include.
    for part in ("include/nlohmann", "share/cmake/nlohmann_json"):
        if not (tools.headers() / part).is_dir():
            raise SetupError("nlohmann/json's headers are missing", "install nlohmann-json3-dev")
        mirror(tools.headers() / part, libraries / "json" / part)


def mirror(source: Path, target: Path) -> None:
    wanted = {file.relative_to(source) for file in source.rglob("*") if file.is_file()}
    for file in [found for found in target.rglob("*") if found.is_file()]:
        if file.relative_to(target) not in wanted:
            file.unlink()
    for name in wanted:
        copy_changed(source / name, target / name)


def copy_changed(source: Path, target: Path) -> None:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a cache that was copied by links stays as it is
    shutil.copyfile(source, target)


def pack(built: Path, folder: Path, inputs: str, compiler: str) -> None:
    """Writes NAME.gz for each file, and the list. The same files give the same bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed, sent = {}, 0
    for name in (*PAGE_FILES, *BUILT):
        path = (built if name in BUILT else PAGE) / name
        if not path.is_file():
            raise SetupError(f"the build left no {name} in {built}")
        content = path.read_bytes()
        packed = gzip.compress(content, 9, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        sent += len(packed)
        digest = hashlib.sha256(content).hexdigest()
        listed[name] = {"bytes": len(content), "packed": len(packed), "sha256": digest}
    if sent > MOST_BYTES:
        raise SetupError(
            f"The viewer for the page must have at most {MOST_BYTES} bytes packed (got {sent})",
            f"see which file of {folder} has grown",
        )
    manifest = {"compiler": compiler, "sources": inputs, "files": listed}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def describe(folder: Path) -> list[str]:
    """A line for each file and one for all."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    lines = [f"{one['bytes']:>9} {one['packed']:>8} {name}" for name, one in files.items()]
    return [*lines, f"{sum(one['packed'] for one in files.values())} bytes over the wire in all"]
