"""The native library, or why it is missing. Nodes register in any case and then run dense."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

# Systems that the package index has a wheel for, with their newest Python.
_WHEELS = {("linux", "x86_64"): (3, 14), ("win32", "amd64"): (3, 13)}
_DENSE = "Until then everything runs dense."


def plugin_version() -> str:
    """The version in this folder's pyproject.toml; "" where that is missing."""
    file = Path(__file__).resolve().parent.parent / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else ""


def how_to_install() -> str:
    """What the user of this Python runs to get the library, in a sentence or two."""
    newest = _WHEELS.get((sys.platform, platform.machine().lower()))
    if newest is None or sys.version_info[:2] > newest:
        here = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.system()}"
        return (
            f"There is no wheel for {here} {platform.machine()}. With a C++20 compiler it can be"
            f" built: run `{pip(sys.executable)} .` in the folder of this plugin,"
            f" and restart ComfyUI. {_DENSE}"
        )
    version = plugin_version()
    package = f"paroattention=={version}" if version else "paroattention"
    return f"Run `{pip(sys.executable)} {package}` and restart ComfyUI. {_DENSE}"


def pip(executable: str, home: str | None = None, *, has_pip: bool | None = None) -> str:
    """The command that installs packages for a Python, up to their names. It does not name the
    user: pages and bug reports show it."""
    if has_pip is None:
        has_pip = importlib.util.find_spec("pip") is not None
    python = _shown(executable, str(Path.home()) if home is None else home)
    # ComfyUI's desktop program makes its environment with uv, without pip.
    return f"{python} -m pip install" if has_pip else f"uv pip install --python {python}"


def _shown(executable: str, home: str) -> str:
    """A Python as it is typed on a command line."""
    windows = "\\" in executable
    path = (PureWindowsPath if windows else PurePosixPath)(executable)
    # The portable ComfyUI: its own .bat files name it so, from the folder that they lie in.
    if path.parent.name == "python_embeded":
        return str(path.relative_to(path.parent.parent))
    if path.is_relative_to(home):
        # Quotes would keep a shell from reading ~.
        near = str(path.relative_to(home))
        start = "%USERPROFILE%\\" if windows else "~/"
        return f'"{start}{near}"' if windows and " " in near else start + near.replace(" ", "\\ ")
    return f'"{path}"' if " " in str(path) else str(path)


def _problem(installed: str) -> str:
    """Why an installed library does not go with this folder, or ""."""
    wanted = plugin_version()
    if not wanted or installed == wanted:
        return ""
    # An update of the folder alone would otherwise fail somewhere in the middle of a sampling run.
    return (
        f"PAROAttention's native library has version {installed}, but the plugin has version"
        f" {wanted}. {how_to_install()}"
    )


def _failed(error: Exception) -> str:
    """What is told where the library does not load."""
    if isinstance(error, ModuleNotFoundError) and error.name == "paroattention":
        return f"PAROAttention's native library is not installed. {how_to_install()}"
    if isinstance(error, ImportError) and error.name == "torch":
        # Another copy of the library would not help.
        return f"PAROAttention does not run here: {error}. {_DENSE}"
    return (
        f"PAROAttention's native library does not load ({type(error).__name__}: {error})."
        f" {how_to_install()}"
    )


try:
    import paroattention as paro

    MISSING = _problem(paro.__version__)
    if MISSING:
        paro = None
except Exception as error:
    # Anything may go wrong while a binary loads (missing wheel, other Python, broken libraries).
    paro = None
    MISSING = _failed(error)
