"""The plugin as ComfyUI's registry gives it to a user: what git holds, without .comfyignore's.

The registry's own program packs it at a release; this makes the same files, to be looked at and
tried before.
"""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

from .. import registry
from ..setup.paths import REPO
from ..setup.steps import SetupError
from .check import places
from .pack import DATE, project

# What ComfyUI and its managers read, at least.
NEEDED = ("__init__.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")
NEEDED += ("comfy_nodes/nodes.py", "comfy_nodes/web/panel.js", "locales/zh/nodeDefs.json")
MOST_BYTES = 2 << 20


def files() -> list[str]:
    """Their names, as git has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise SetupError("The plugin's archive is made from a git clone", "clone it with git")
    left_out = ignored()
    names = [name for name in listed.stdout.split("\0") if name]
    return [name for name in names if not any(f"/{name}".startswith(one) for one in left_out)]


def ignored() -> list[str]:
    """.comfyignore's lines: here each is a file or a folder by its whole path."""
    text = (REPO / ".comfyignore").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in lines:
        if not line.startswith("/") or re.search(r"[*?\[!]", line):
            raise SetupError(f".comfyignore must name files and folders by / and path (got {line})")
    return lines


def make(folder: Path) -> Path:
    """Writes the archive after checking it; SetupError with all that is wrong."""
    contents = {name: (REPO / name).read_bytes() for name in files()}
    faults = [f"{name} is missing" for name in NEEDED if name not in contents]
    for name, content in contents.items():
        faults += [f"{name} names {place}" for place in places(content)]
    faults += registry.faults(contents)
    about = project()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"comfyui-{about['name']}-{about['version']}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, content)
    if (size := path.stat().st_size) > MOST_BYTES:
        faults.append(f"it has {size >> 10} KiB, at most {MOST_BYTES >> 10} are wanted")
    if faults:
        path.unlink()
        raise SetupError(f"{path.name} must not be shipped: " + "; ".join(faults))
    return path
