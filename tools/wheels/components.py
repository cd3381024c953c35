"""What is compiled into the wheels besides our own code: names, versions, licences.

Versions are read from the sources that are compiled. Each component's licence goes into the wheel,
and all of them stand in its list of materials (bill.py).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..setup import viewer
from ..setup.steps import SetupError
from ..web_viewer import build as web_viewer
from .inputs import MINGW, PYBIND11, ZIG, Inputs

FONT_LICENCE = Path(__file__).parent / "roboto.txt"
DEBIAN = Path("/usr/share/doc")
LLVM = "Apache-2.0 WITH LLVM-exception"


@dataclass(frozen=True)
class Component:
    """license: its SPDX expression. url: a package URL without a version. what: what it is for.
    text: the name of its licence in the wheel, and the file with it."""

    name: str
    version: str
    license: str
    url: str
    what: str
    text: tuple[str, Path]

    def require_text(self) -> None:
        if not self.text[1].is_file():
            raise SetupError(f"The licence of {self.name} was not found at {self.text[1]}")


def of(inputs: Inputs, page: Path, system: str) -> list[Component]:
    """The components of the wheel for a system. page: the folder of the viewer for the page."""
    runtime = _zig(inputs) if system == "linux" else _mingw()
    found = [*_viewer(inputs), *_core(inputs), *runtime, _emscripten(page)]
    for one in found:
        one.require_text()
    return found


def _viewer(inputs: Inputs) -> list[Component]:
    folder = viewer.library_folder(inputs.paths)
    imgui, implot, glfw = (folder / one / one for one in ("imgui", "implot", "glfw"))
    window = glfw / "include" / "GLFW"
    font = imgui / "misc" / "fonts" / "Roboto-Medium.ttf"
    return [
        Component(
            name="Dear ImGui",
            version=_define(imgui / "imgui.h", "IMGUI_VERSION"),
            license="MIT",
            url="pkg:github/ocornut/imgui",
            what="the viewer's widgets, with stb's parts for fonts and text",
            text=("dear-imgui.txt", imgui / "LICENSE.txt"),
        ),
        Component(
            name="ImPlot",
            version=_define(implot / "implot.h", "IMPLOT_VERSION"),
            license="MIT",
            url="pkg:github/epezent/implot",
            what="the viewer's plots",
            text=("implot.txt", implot / "LICENSE"),
        ),
        Component(
            name="GLFW",
            version=_numbers(window, "GLFW_VERSION", "MAJOR MINOR REVISION"),
            license="Zlib",
            url="pkg:github/glfw/glfw",
            what="the desktop viewer's window",
            text=("glfw.md", glfw / "LICENSE.md"),
        ),
        Component(
            name="Roboto Medium",
            version=_search(font, r"Version (\d+\.\d+)"),
            license="Apache-2.0",
            url="pkg:github/googlefonts/roboto",
            what="the viewer's font",
            text=("roboto.txt", FONT_LICENCE),
        ),
    ]


def _core(inputs: Inputs) -> list[Component]:
    zlib, json = inputs.zlib(), inputs.prefix() / "include" / "nlohmann"
    inputs.pybind11()
    return [
        Component(
            name="zlib",
            version=_define(zlib / "zlib.h", "ZLIB_VERSION"),
            license="Zlib",
            url="pkg:github/madler/zlib",
            what="deflates codes and captures",
            text=("zlib.txt", zlib / "README"),
        ),
        Component(
            name="JSON for Modern C++",
            version=_numbers(json, "NLOHMANN_JSON_VERSION", "MAJOR MINOR PATCH"),
            license="MIT",
            url="pkg:github/nlohmann/json",
            what="reads and writes profiles",
            text=("nlohmann-json.txt", DEBIAN / "nlohmann-json3-dev" / "copyright"),
        ),
        Component(
            name="pybind11",
            version=PYBIND11.partition("==")[2],
            license="BSD-3-Clause",
            url="pkg:pypi/pybind11",
            what="makes the core a module of Python",
            text=(
                "pybind11.txt",
                next((inputs.folder / "pybind11").rglob("*.dist-info/**/LICENSE")),
            ),
        ),
    ]


def _zig(inputs: Inputs) -> list[Component]:
    return [
        Component(
            name="LLVM's C++ runtime",
            version=ZIG.partition("==")[2],
            license=LLVM,
            url="pkg:pypi/ziglang",
            what="libc++, libc++abi and libunwind as this version of Zig has them",
            text=("llvm-libcxx.txt", inputs.zig() / "ziglang" / "lib" / "libcxx" / "LICENSE.TXT"),
        )
    ]


def _mingw() -> list[Component]:
    return [
        Component(
            name="GCC's C++ runtime",
            version=_output(MINGW, "-dumpfullversion"),
            license="GPL-3.0-or-later WITH GCC-exception-3.1",
            url="pkg:deb/debian/gcc-mingw-w64",
            what="libstdc++ and libgcc",
            text=("gcc-runtime.txt", DEBIAN / "gcc-mingw-w64-base" / "copyright"),
        ),
        Component(
            name="mingw-w64",
            version=_output("dpkg-query", "-W", "-f", "${Version}", "mingw-w64-common"),
            license="ZPL-2.1 AND MIT",
            url="pkg:deb/debian/mingw-w64",
            what="start-up code, import libraries and winpthreads",
            text=("mingw-w64.txt", DEBIAN / "mingw-w64-common" / "copyright"),
        ),
    ]


def _emscripten(page: Path) -> Component:
    return Component(
        name="Emscripten",
        version=web_viewer.compiler(page).split()[-1],
        license=f"MIT AND {LLVM}",
        url="pkg:github/emscripten-core/emscripten",
        what="the C and C++ libraries of the viewer for the page",
        text=("emscripten.txt", page / web_viewer.LICENCE),
    )


def _define(header: Path, name: str) -> str:
    """The text that a header defines."""
    return _search(header, rf'^#define {name}\s+"([^"]+)"')


def _numbers(folder: Path, prefix: str, parts: str) -> str:
    """The version whose numbers one of the folder's headers defines apart."""
    for header in sorted(folder.rglob("*.h*")):
        if f"define {prefix}_" in header.read_text(encoding="utf-8"):
            patterns = [rf"^\s*#define {prefix}_{part}\s+(\d+)" for part in parts.split()]
            return ".".join(_search(header, pattern) for pattern in patterns)
    raise SetupError(f"No version of {prefix} was found in {folder}")


def _search(file: Path, pattern: str) -> str:
    # A font's texts are UTF-16.
    text = file.read_bytes().replace(b"\0", b"").decode("latin-1")
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise SetupError(f"No version was found in {file}")
    return found[1]


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"A version could not be read: {error}") from error
    return done.stdout.strip()
