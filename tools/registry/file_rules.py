"""Which files may be published, whatever code they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

MOST_BYTES = 30 << 20
SUFFIXES = {".py", ".js", ".json", ".md", ".toml", ".txt"}
NAMES = {"LICENSE", ".comfyignore", ".gitignore"}
# All that is no text: ComfyUI's template browser shows them beside the examples.
PICTURES = {
    f"example_workflows/PARO {name}.jpg"
    for name in ("Flux", "Wan calibration", "Wan compare", "Wan text to video")
}
_FOREIGN = re.compile(
    r"^(_?vendor(ed)?|third[_-]?party|extern(al)?|node_modules|site-packages|.*\.(dist|egg)-info)$",
    re.IGNORECASE,
)
_LICENCE = re.compile(r"^(licen[cs]e|copying|notice)\b", re.IGNORECASE)
_BANNER = re.compile(
    r"\bcopyright\b|\(c\) ?(19|20)\d\d|SPDX-|@licen[cs]e|licensed under", re.IGNORECASE
)
_PACKED = re.compile(r"\.(min|bundle|pack|umd)\.")
# Controls, and marks that show a line in another order than it is read in.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
# A line of a program that a person wrote, and one of another text.
_LONGEST = {".py": 200, ".js": 200}
_LONGEST_TEXT = 1000


def of_all(files: Mapping[str, bytes]) -> list[str]:
    size = sum(map(len, files.values()))
    if size <= MOST_BYTES:
        return []
    return [f"all files together must have at most {MOST_BYTES >> 20} MiB (got {size >> 20} MiB)"]


def of_one(name: str, content: bytes) -> list[str]:
    path = PurePosixPath(name)
    found = [
        f"{name} lies in {part}/, a folder of another project's code"
        for part in path.parts[:-1]
        if _FOREIGN.match(part)
    ]
    if name != "LICENSE" and _LICENCE.match(path.name):
        found.append(f"{name} is the licence of another project")
    if _PACKED.search(path.name):
        found.append(f"{name} is packed: publish what a person wrote")
    if name in PICTURES:
        return found if content[:3] == b"\xff\xd8\xff" else [*found, f"{name} is no JPEG picture"]
    if path.suffix not in SUFFIXES and path.name not in NAMES:
        return [*found, f"{name} is of no kind that is published ({', '.join(sorted(SUFFIXES))})"]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return [*found, f"{name} is no text in UTF-8"]
    return found + [f"{name}:{line} {what}" for line, what in _of_text(path, text)]


def _of_text(path: PurePosixPath, text: str):
    """(line, what is wrong) of a text."""
    most = _LONGEST.get(path.suffix, _LONGEST_TEXT)
    code = path.suffix in _LONGEST
    for line, words in enumerate(text.split("\n"), 1):
        if len(words) > most:
            yield line, f"has {len(words)} characters, at most {most} are written by a person"
        if unseen := _UNSEEN.search(words):
            yield line, f"holds the invisible character U+{ord(unseen[0]):04X}"
        if code and (banner := _BANNER.search(words)):
            yield line, f"holds '{banner[0]}': code of another project"
        wanted = words.strip()
        if path.name == "requirements.txt" and re.match(r"-|.*(://|\bgit\+|@ )", wanted):
            yield line, f"installs from elsewhere than the package index ({wanted[:60]})"
