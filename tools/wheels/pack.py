"""Puts a wheel together: the same files give the same bytes, whenever and wherever it is done."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from ..setup.paths import REPO
from ..setup.steps import SetupError
from .bill import bill
from .components import Component

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PACKAGE = REPO / "native" / "python" / "paroattention"
TAGS = {"linux": "py3-none-manylinux_2_28_x86_64", "windows": "py3-none-win_amd64"}
# The earliest that a ZIP file can say.
DATE = (1980, 1, 1, 0, 0, 0)


def project() -> dict:
    """pyproject.toml's [project]."""
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def metadata() -> str:
    """METADATA as the index reads it (core metadata 2.4)."""
    about = project()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {about['name']}",
        f"Version: {about['version']}",
        f"Summary: {about['description']}",
        f"License-Expression: {about['license']}",
        *(f"License-File: {name}" for name in about["license-files"]),
        *(f"Project-URL: {name}, {url}" for name, url in about["urls"].items()),
        f"Requires-Python: {about['requires-python']}",
        *(f"Requires-Dist: {one}" for one in about["dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    text = (REPO / about["readme"]).read_text(encoding="utf-8")
    return "\n".join(lines) + "\n\n" + text


def entry_points() -> str:
    scripts = project()["scripts"].items()
    return "[console_scripts]\n" + "".join(f"{name} = {place}\n" for name, place in scripts)


def sources() -> dict[str, bytes]:
    """The package's own files by their names in the wheel; nothing that a build has left there."""
    return {
        f"paroattention/{file.relative_to(PACKAGE).as_posix()}": file.read_bytes()
        for file in PACKAGE.rglob("*.py")
    }


def name(system: str) -> str:
    """A wheel's file name."""
    about = project()
    return f"{about['name']}-{about['version']}-{TAGS[system]}.whl"


def wheel(system: str, built: dict[str, Path], parts: list[Component], folder: Path) -> Path:
    """Writes the wheel and returns it. built: compiled files by their names in the package.
    parts: what is compiled into them besides our own code."""
    about = project()
    info, tag = f"{about['name']}-{about['version']}.dist-info", TAGS[system]
    files = sources()
    files |= {f"paroattention/{file}": path.read_bytes() for file, path in built.items()}
    files |= {
        f"{info}/licenses/{file}": (REPO / file).read_bytes() for file in about["license-files"]
    }
    files |= {f"{info}/licenses/{one.text[0]}": one.text[1].read_bytes() for one in parts}
    files[f"{info}/sboms/{about['name']}.cdx.json"] = bill(about, tag, parts)
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/entry_points.txt"] = entry_points().encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: run.py wheels\nRoot-Is-Purelib: false\nTag: {tag}\n"
    ).encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name(system)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(files, key=lambda file: (file.startswith(info), file)):
            entry = zipfile.ZipInfo(file, DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            runs = file.startswith("paroattention/paro-viewer")
            entry.create_system, entry.external_attr = 3, (0o100755 if runs else 0o100644) << 16
            archive.writestr(entry, files[file])
    return path


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=")
        lines.append(f"{name},sha256={digest.decode()},{len(files[name])}")
    return ("\n".join([*lines, f"{own},,"]) + "\n").encode()


# What names the version beside pyproject.toml.
_VERSIONS = {
    "CMakeLists.txt": r"project\(paroattention VERSION ([\d.]+) ",
    "requirements.txt": r"^paroattention==([^;\s]+)",
}


def require_one_version() -> str:
    """The version, where every file that names one agrees."""
    version = project()["version"]
    for file, pattern in _VERSIONS.items():
        text = (REPO / file).read_text(encoding="utf-8")
        named = set(re.findall(pattern, text, re.MULTILINE))
        if named != {version}:
            raise SetupError(
                f"{file} must name the version of pyproject.toml, {version}"
                f" (got {', '.join(sorted(named)) or 'none'})",
                "make them agree",
            )
    return version
