"""The native library, or why it is missing. Nodes register in any case and then run dense."""

from __future__ import annotations

import re
from pathlib import Path

_INSTALL = (
    "To install it, run `pip install .` with ComfyUI's Python in the folder of this plugin. "
    "This needs a C++20 compiler and the headers of that Python. "
    "Until then everything runs dense."
)


def plugin_version() -> str:
    """The version in this folder's pyproject.toml; "" where that is missing."""
    file = Path(__file__).resolve().parent.parent / "pyproject.toml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else ""


def _problem(installed: str) -> str:
    """Why an installed library does not go with this folder, or ""."""
    wanted = plugin_version()
    if not wanted or installed == wanted:
        return ""
    # An update of the folder alone would otherwise fail somewhere in the middle of a sampling run.
    return (
        f"PAROAttention's native library has version {installed}, but the plugin has version"
        f" {wanted}. {_INSTALL}"
    )


try:
    import paroattention as paro

    MISSING = _problem(paro.__version__)
    if MISSING:
        paro = None
except Exception as error:
    # Anything may go wrong while a binary loads (missing wheel, other Python, broken libraries).
    paro = None
    MISSING = (
        f"PAROAttention's native library is missing ({type(error).__name__}: {error}). {_INSTALL}"
    )
