"""Compiles what a wheel holds for one system: `_core` for every Python, operators, the viewer."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ..setup import viewer
from ..setup.paths import REPO
from ..setup.steps import SetupError, run_logged
from .inputs import NVRTC_VERSION, Inputs, PythonTarget

HERE = Path(__file__).parent
TODO = "read the compiler's message in the log; after a fix run the same command again"


class Build:
    """system: "linux" or "windows"."""

    def __init__(self, inputs: Inputs, system: str):
        self.inputs, self.system = inputs, system
        self.folder = self._folder(system)
        self.log = inputs.paths.logs / f"wheel-{system}.log"
        self.pythons: list[PythonTarget] = (
            inputs.linux_pythons() if system == "linux" else inputs.windows_pythons()
        )

    def run(self) -> dict[str, Path]:
        """The built files by their names in the package."""
        self._tool(
            "configuring", ["cmake", "-S", str(REPO), "-B", str(self.folder), *self._options()]
        )
        jobs = ["--parallel", str(os.cpu_count() or 1)]
        self._tool("building", ["cmake", "--build", str(self.folder), *jobs])
        found = {
            f"_core{one.suffix}": self.folder / "modules" / f"_core{one.suffix}"
            for one in self.pythons
        }
        end, library = ("", ".so") if self.system == "linux" else (".exe", ".dll")
        operators = f"_torch_ops{library}"
        found[operators] = self.folder / "native" / "python" / "torch_ops" / operators
        found[f"paro-viewer{end}"] = self.folder / "viewer" / f"paro-viewer{end}"
        for name, file in found.items():
            if not file.is_file():
                raise SetupError(f"the build for {self.system} left no {name}", "", self.log)
        return found

    def _folder(self, system: str) -> Path:
        quick = "-quick" if self.inputs.quick else ""
        return self.inputs.paths.build / f"wheel-{system}{quick}"

    def _options(self) -> list[str]:
        inputs, options, prefix = self.inputs, {}, self.inputs.prefix()
        if self.system == "linux":
            # GLFW opens X11 when a window is asked for; CMake only wants to see that it is there.
            options |= {"PARO_ZIG": inputs.zig(), "X11_X11_LIB": "libX11.so"} | inputs.cuda()
        else:
            inputs.mingw()
            # Device code is the same: that of the build for Linux.
            images = self._folder("linux") / "native" / "cuda"
            if not any(images.glob("*.fatbin*")):
                raise SetupError(
                    "The wheel for Windows takes its kernels from the build for Linux,"
                    " which is not there yet",
                    "run: python3 run.py wheels --system linux --system windows",
                )
            options |= {"PARO_KERNEL_IMAGES": images, "PARO_CUDA_VERSION": NVRTC_VERSION}
        options |= {
            "CMAKE_TOOLCHAIN_FILE": HERE / f"toolchain_{self.system}.cmake",
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja", path=str(inputs.paths.scripts)) or "ninja",
            "PARO_BUILD_PYTHON": "ON",
            "PARO_BUILD_CUDA": "ON",
            "PARO_STATIC_RUNTIME": "OFF" if self.system == "linux" else "ON",
            "PARO_TORCH_DIR": inputs.torch(),
            "Python_EXECUTABLE": inputs.paths.python,
            "PARO_BUILD_VIEWER": "ON",
            "PARO_PYTHON_MODULES": ";".join(one.entry() for one in self.pythons),
            "PARO_ZLIB_SOURCE": inputs.zlib(),
            "CMAKE_FIND_ROOT_PATH": prefix,
            "nlohmann_json_DIR": prefix / "share" / "cmake" / "nlohmann_json",
            "pybind11_DIR": inputs.pybind11(),
        }
        if shutil.which("ccache"):
            options |= {f"CMAKE_{name}_COMPILER_LAUNCHER": "ccache" for name in ("C", "CXX")}
        named = [f"-D{name}={value}" for name, value in options.items()]
        flags = self._flags(prefix / "include")
        named += [f"-DCMAKE_{name}_FLAGS={flags}" for name in ("C", "CXX")]
        return ["-G", "Ninja", *named, *viewer.ensure_libraries(inputs.paths, pinned=True)]

    def _flags(self, headers: Path) -> str:
        # No path of this machine in what is shipped: assertions and debug sections name their file.
        maps = f"-ffile-prefix-map={REPO}=. -ffile-prefix-map={self.inputs.paths.cache}=cache"
        if self.system == "linux":
            # zig checks undefined behaviour, and optimises for this processor, unless told not to.
            return f"-mcpu=x86_64 -fno-sanitize=all -g0 -isystem {headers} {maps}"
        return maps

    def _tool(self, name: str, command: list[str]) -> None:
        paths = self.inputs.paths
        tool = shutil.which(command[0], path=str(paths.scripts)) or command[0]
        cache = str(self.inputs.folder / "zig-cache")
        env = paths.environment(ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache)
        run_logged(f"{name} for {self.system}", [tool, *command[1:]], self.log, TODO, env=env)


def check_host() -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise SetupError("Wheels are built on Linux on x86-64", "run this on such a machine")
