"""Names and means of machines that are not like ours."""

from __future__ import annotations

import os
import shutil

import pytest

# A part of a path has 255 bytes at most.
STRANGE, LONG = "Größe 画像 🎬", "ü" * 127
# The longest name of a profile: its capture's file then has 255 bytes.
NAME = "画" * 78 + "e"


def require_root() -> None:
    """What only root can make: folders that are full or read-only, and other users."""
    if os.geteuid():
        pytest.skip("only root can mount folders and change users")


def require(program: str, package: str) -> None:
    """A test must not be skipped for want of a means that Debian has."""
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: apt-get install {package}")
