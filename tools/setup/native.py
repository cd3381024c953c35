"""Builds the C++ library into the venv, and the Catch2 tests."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from . import system
from .paths import REPO, Paths
from .python_env import PIP
from .steps import SetupError, hash_file, hash_text, hash_tree, run_logged, stage

SOURCES = ("native", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE")
BUILD_TODO = "read the compiler's message in the log; after a fix run the same command again"


def sources(*more: str) -> str:
    return hash_tree(REPO, [name for name in (*SOURCES, *more) if (REPO / name).exists()])


def toolchain(paths: Paths) -> str:
    """What a build depends on besides the sources."""
    compiler = system.find_compiler() or ""
    packages = (paths.stamps / "packages").read_text(encoding="utf-8")
    text = ""
    if compiler:
        run = subprocess.run([compiler, "--version"], capture_output=True, text=True)
        text = run.stdout
    return hash_text(compiler, text, packages, platform.machine(), sys.version)


def build_environment(paths: Paths) -> dict[str, str]:
    # The log gets all that the compiler says.
    extra = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1), "PARO_BUILD_VERBOSE": "1"}
    if shutil.which("ccache"):
        extra["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    if shutil.which("ninja", path=str(paths.scripts)):
        extra["CMAKE_GENERATOR"] = "Ninja"
    return paths.environment(**extra)


def ensure_package(paths: Paths) -> None:
    """pip install of the repository: the package paroattention with its native module."""

    def build() -> None:
        command = [str(paths.python), *PIP, "install", "--no-deps", "--no-build-isolation"]
        command += [
            "--force-reinstall",
            "-v",
            "--config-settings",  # -C needs pip 23.1
            f"build-dir={paths.build / 'python'}",
            str(REPO),
        ]
        log = paths.logs / "package.log"
        run_logged(
            "building the native library", command, log, BUILD_TODO, env=build_environment(paths)
        )

    stage(paths.stamps / "package", hash_text(sources(), toolchain(paths)), build)


def install_wheel(paths: Paths, wheel: Path) -> None:
    """The package paroattention from a wheel, in the place of one that was built."""
    if wheel.suffix != ".whl" or not wheel.is_file():
        raise SetupError(
            f"--wheel must name a file that ends in .whl (got {wheel})",
            "build one with: python3 run.py wheels",
        )

    def install() -> None:
        command = [str(paths.python), *PIP, "install", "--no-deps", "--force-reinstall", str(wheel)]
        todo = "choose the wheel of this system (out/wheels)"
        log = paths.logs / "package.log"
        run_logged("installing the wheel", command, log, todo, env=paths.environment())

    stage(paths.stamps / "package", hash_text("wheel", hash_file(wheel)), install)


def installed_package(paths: Paths) -> Path | None:
    """The library's folder in the environment; None where it is not installed yet."""
    found = next(paths.venv.rglob("site-packages/paroattention/__init__.py"), None)
    return found.parent if found else None


def build_folder(paths: Paths) -> Path:
    """Of the C++ tests and of the viewer: the core and the viewer's document are compiled once."""
    return paths.build / "native"


def ensure_tests(paths: Paths) -> Path:
    """The folder in which ctest runs."""
    return build_tests(paths, build_folder(paths), [])


def build_tests(paths: Paths, folder: Path, options: list[str]) -> Path:
    """Builds the C++ tests into a folder, which it returns. options: further ones of CMake."""

    def build() -> None:
        log = paths.logs / "native-tests.log"
        env = build_environment(paths)
        configure = ["cmake", "-S", str(REPO), "-B", str(folder), "-DPARO_BUILD_TESTS=ON"]
        configure += ["-DCMAKE_BUILD_TYPE=Release", *options]
        run_tool(paths, "configuring the C++ tests", configure, log, env)
        make = ["cmake", "--build", str(folder), "--config", "Release", "--parallel", "--target"]
        make += ["paro_tests", "paro_viewer_tests", "paro_viewer_large"]
        run_tool(paths, "building the C++ tests", make, log, env)

    inputs = hash_text(sources("tests/native", "tests/viewer", "viewer/document"), *options)
    stage(folder / ".paro-stamp", hash_text(inputs, toolchain(paths)), build)
    return folder


def run_tool(paths: Paths, name: str, command: list[str], log: Path, env: dict[str, str]) -> None:
    tool = shutil.which(command[0], path=str(paths.scripts)) or command[0]
    run_logged(name, [tool, *command[1:]], log, BUILD_TODO, env=env)
