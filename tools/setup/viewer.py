"""Builds the desktop viewer: what it needs of the system, its libraries, the program.

Dear ImGui, ImPlot and GLFW come by CMake's FetchContent at pinned places. Where only a package
index is reachable, the source package of imgui-bundle carries all three: pinned by hash, only
built from, nothing of it enters this repository.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path, PurePosixPath

from . import comfyui, native, python_env, system
from .paths import REPO, Paths
from .steps import Progress, SetupError, hash_text, hash_tree, say, stage

HEADERS = system.Need(
    "OpenGL's and X11's headers",
    True,
    "libgl-dev libegl-dev libxrandr-dev libxinerama-dev libxcursor-dev libxi-dev",
    "mesa-libGL-devel mesa-libEGL-devel libXrandr-devel libXinerama-devel libXcursor-devel"
    " libXi-devel",
    "mesa libxrandr libxinerama libxcursor libxi",
    "",
)
RENDERER = system.Need(
    "Mesa's renderer", False, "libegl1 libgl1-mesa-dri", "mesa-dri-drivers", "mesa", ""
)
DISPLAY = system.Need(
    "a virtual display", False, "xvfb xdotool", "xorg-x11-server-Xvfb xdotool",
    "xorg-server-xvfb xdotool", "",
)  # fmt: skip
INCLUDES = (
    "GL/gl.h EGL/egl.h X11/extensions/Xrandr.h X11/extensions/Xinerama.h X11/Xcursor/Xcursor.h"
)

GIT_URL = "https://github.com/ocornut/imgui.git"
SDIST = "imgui-bundle==1.93.0"
SDIST_FILE = "imgui_bundle-1.93.0.tar.gz"
SDIST_SHA256 = "10ad1dab8258a6787b4f07bb926b08d0efc648a7906242568c8dd778c5e719bf"
FOLDERS = {"IMGUI": "imgui/imgui", "IMPLOT": "implot/implot", "GLFW": "glfw/glfw"}


def ensure(paths: Paths, *, with_tests: bool) -> Path:
    """The built program. Raises SetupError for what stands in the way."""
    ensure_system(paths, with_tests)
    name = "paro-viewer.exe" if sys.platform == "win32" else "paro-viewer"
    folder = native.build_folder(paths)
    libraries = ensure_libraries(paths)

    def build() -> None:
        log = paths.logs / "viewer.log"
        env = native.build_environment(paths)
        configure = ["cmake", "-S", str(REPO), "-B", str(folder), "-DPARO_BUILD_VIEWER=ON"]
        configure += ["-DCMAKE_BUILD_TYPE=Release", *libraries]
        if "CMAKE_CXX_COMPILER_LAUNCHER" in env:
            configure.append(f"-DCMAKE_C_COMPILER_LAUNCHER={env['CMAKE_CXX_COMPILER_LAUNCHER']}")
        native.run_tool(paths, "configuring the viewer", configure, log, env)
        make = ["cmake", "--build", str(folder), "--config", "Release", "--parallel"]
        make += ["--target", "paro-viewer"]
        native.run_tool(paths, "building the viewer", make, log, env)

    inputs = hash_tree(REPO, ["viewer", "native/core", "CMakeLists.txt"])
    stage(folder / ".paro-viewer-stamp", hash_text(inputs, *libraries), build)
    for found in (folder / "viewer" / name, folder / "viewer" / "Release" / name):
        if found.is_file():
            return found
    raise SetupError(
        f"the build left no {name} in {folder / 'viewer'}", "", paths.logs / "viewer.log"
    )


def ensure_system(paths: Paths, with_tests: bool) -> None:
    """Headers and, for tests, a renderer and a virtual display; Linux only."""
    if sys.platform != "linux":
        return
    compiler = system.find_compiler()
    source = "".join(f"#include <{name}>\n" for name in INCLUDES.split())
    needs = []
    if compiler is None or not system.compiles(compiler, source):
        needs.append(HEADERS)
    if with_tests and not all(map(shutil.which, ("Xvfb", "xdotool"))):
        needs += [RENDERER, DISPLAY]
    if not needs:
        return
    names = ", ".join(need.what for need in needs)
    if system.is_root() and shutil.which("apt-get"):
        say(f"Missing on this system: {names}.")
        log = paths.logs / "apt.log"
        packages = [name for need in needs for name in need.apt.split()]
        system.apt_run(["update"], log)
        system.apt_run(["install", "-y", "--no-install-recommends", *packages], log)
        return
    command = system.install_command(needs)
    if HEADERS in needs:
        raise SetupError(f"The viewer needs {names}, which is not installed", f"run: {command}")
    say(f"{names} not found: tests that need it fail. To install it: {command}")


def ensure_libraries(paths: Paths, *, pinned: bool = False) -> list[str]:
    """CMake's arguments for the libraries' sources: none where it can fetch them itself. pinned:
    those of the source package in any case, which are known to the byte."""
    folder = library_folder(paths)
    stamp = folder / ".paro-stamp"
    if not stamp.is_file() and not pinned:
        git = shutil.which("git")
        log = paths.logs / "viewer-git.log"
        with Progress("looking for Dear ImGui's git repository"):
            reach = ["ls-remote", "--exit-code", GIT_URL, "HEAD"]
            if git and comfyui.git_ends(git, reach, log, comfyui.GIT_REACH_SECONDS):
                return []
        say("Dear ImGui's git repository is out of reach: taking its source by pip.")

    def unpack() -> None:
        archive = download(paths)
        shutil.rmtree(folder, ignore_errors=True)
        with Progress("unpacking the viewer's libraries"), tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                write_member(tar, member, folder)

    stage(stamp, SDIST_SHA256, unpack)
    return [f"-DFETCHCONTENT_SOURCE_DIR_{key}={folder / name}" for key, name in FOLDERS.items()]


def library_folder(paths: Paths) -> Path:
    return paths.cache / "imgui-bundle-1.93.0"


def write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """A regular file of one of the three libraries; everything else is left in the archive."""
    relative = comfyui.member_path(member.name, PurePosixPath("external"))
    if relative is None or not member.isfile():
        return
    if not any(relative.is_relative_to(name) for name in FOLDERS.values()):
        return
    target = folder.joinpath(*relative.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    with source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)


def download(paths: Paths) -> Path:
    # pip makes the package's metadata, by a builder of our version: without isolation.
    python_env.ensure_builder(paths)
    options = ("--no-build-isolation",)
    what = "the viewer's libraries"
    return comfyui.download_pinned(paths, "viewer", what, SDIST, SDIST_FILE, SDIST_SHA256, options)
