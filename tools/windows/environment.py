"""Windows' CPythons under wine, in the cache: copies, since wheels are built with the originals.

numpy in a copy is changed to be importable under wine, so no wheel may be compiled against one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import locks
from ..setup.paths import Paths
from ..setup.python_env import PIP
from ..setup.steps import SetupError, hash_file, hash_text, stage
from ..wheels.inputs import WINDOWS_PYTHONS, Inputs
from . import math_library
from .wine import Wine

# The last numpy that every one of the Pythons has.
NUMPY = ("numpy==2.2.6",)
# What torch and the tests need, of versions that every one of the Pythons has. Windows' torch on
# the index is built without CUDA: what it needs is what its metadata says for Windows.
TORCH = (
    *("torch==2.11.0", "typing_extensions==4.16.0", "sympy==1.14.0", "mpmath==1.3.0"),
    *("networkx==3.4.2", "jinja2==3.1.6", "markupsafe==3.0.4", "fsspec==2026.9.0"),
    *("filelock==4.1.0", "setuptools==81.0.0"),
)
# Microsoft's msvcp140.dll, through which torch's exceptions pass: see OVERRIDES of wine.py.
RUNTIME = ("msvc-runtime==14.51.36231",)
TESTS = (
    *("pytest==9.2.0", "iniconfig==2.3.1", "pluggy==1.7.0", "packaging==26.4", "pygments==2.21.0"),
    *("colorama==0.4.6", "exceptiongroup==1.3.0", "tomli==2.2.1"),
)
# Newer ones of rpds-py need bcryptprimitives.dll, which wine 8 lacks; this one is not for 3.13,
# where the test that needs it is skipped.
SCHEMA = ("jsonschema==4.23.0", "attrs==26.1.0", "referencing==0.35.1", "rpds-py==0.18.1")
SCHEMA += ("jsonschema-specifications==2023.12.1",)
# Read by every start of the copied Python.
SITE = """# wine's WMI ends the program that asks it; Python knows other ways without it.
import sys

sys.modules["_wmi"] = None
"""


def packages(version: str) -> tuple[str, ...]:
    """What the Python with torch gets."""
    return (*NUMPY, *TORCH, *RUNTIME, *TESTS, *(SCHEMA if version != "3.13" else ()))


class Environment:
    """wine's prefix and the Pythons in it; made once, then found."""

    def __init__(self, paths: Paths):
        self.paths, self.folder = paths, paths.cache / "windows"
        self.log = paths.logs / "windows.log"
        self.wine = Wine(self.folder / "prefix", self.log)
        self.inputs = Inputs(paths)
        self.inputs.log = self.log

    def python(self, version: str, *, with_torch: bool) -> Path:
        """Folder of a Python with numpy, and torch and pytest where they are wanted."""
        if version not in WINDOWS_PYTHONS:
            known = ", ".join(WINDOWS_PYTHONS)
            raise SetupError(f"Windows' Python {version} is not known", f"use one of {known}")
        folder = self.folder / f"python{version}{'-torch' if with_torch else ''}"
        wanted = packages(version) if with_torch else NUMPY

        def build() -> None:
            original = self.inputs.windows_python(version, WINDOWS_PYTHONS[version])
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(original, folder)
            self._install(wanted, version, folder / "Lib" / "site-packages")
            (folder / "Lib" / "site-packages" / "sitecustomize.py").write_text(SITE)
            math_library.install(folder, self.log)
            if with_torch:
                shutil.copy2(folder / "Lib" / "site-packages" / "msvcp140.dll", folder)

        made = [WINDOWS_PYTHONS[version], *wanted, SITE, hash_file(math_library.SOURCE)]
        stage(folder / ".paro-stamp", hash_text(*made, math_library.OURS.decode()), build)
        return folder

    def _install(self, wanted: tuple[str, ...], version: str, site: Path) -> None:
        """By this side's pip: Windows' own takes minutes for torch under wine."""
        command = [str(self.paths.python), *PIP, "install", "--quiet", "--no-deps", "--upgrade"]
        command += ["--no-compile", "--platform", "win_amd64", "--only-binary=:all:"]
        command += ["--implementation", "cp", "--python-version", version, "--target", str(site)]
        what = "numpy, torch and pytest" if len(wanted) > 1 else wanted[0]
        command += locks.options(self.paths, wanted)
        self.inputs.run(f"{what} for Windows' Python {version}", command)
