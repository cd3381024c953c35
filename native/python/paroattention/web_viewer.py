"""The viewer for a browser's page, as a wheel brings it: compressed files under fixed names."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

# Fixed: what is in no list is no file of the viewer's.
TYPES = {
    "viewer.html": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "files.js": "text/javascript; charset=utf-8",
    "input.js": "text/javascript; charset=utf-8",
    "paro-viewer.js": "text/javascript; charset=utf-8",
    "paro-viewer.wasm": "application/wasm",
}
MANIFEST = "files.json"
_cache: dict[Path, WebFile] = {}


@dataclass(frozen=True)
class WebFile:
    """packed: the file as gzip; sha256: of the file itself."""

    type: str
    packed: bytes
    sha256: str

    def plain(self) -> bytes:
        return gzip.decompress(self.packed)


def folder() -> Path:
    """Where they lie; `python3 run.py web-viewer` puts them there too."""
    return Path(__file__).resolve().parent / "web"


def problem() -> str:
    """Why there is no viewer for the page, or ""."""
    if (folder() / MANIFEST).is_file():
        return ""
    return (
        "the installed library has no viewer for the page (it comes with the wheel;"
        " python3 run.py web-viewer builds it)"
    )


def read(name: str) -> WebFile | None:
    """A file by its name, None for a name that is none of the list. ValueError where its bytes are
    not those that were built."""
    if name not in TYPES or problem():
        return None
    path = folder() / f"{name}.gz"
    if path not in _cache:
        wanted = json.loads((folder() / MANIFEST).read_text(encoding="utf-8"))["files"][name]
        packed = path.read_bytes()
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
        if found != wanted["sha256"]:
            raise ValueError(f"{name} must be the file that was built: install the library again")
        _cache[path] = WebFile(TYPES[name], packed, found)
    return _cache[path]
