"""Hashes of every package that the project itself installs.

packages.txt: what `run.py` sets up, for every CPython and system, with all that it needs in turn.
single.txt: packages that are installed one by one: compilers, Pythons for Windows, formatters.
pip then takes no file that is not the one known. `python3 -m tools.locks.renew` makes both anew.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ..setup.paths import Paths
from ..setup.steps import SetupError, hash_text

HERE = Path(__file__).parent
PACKAGES, SINGLE = HERE / "packages.txt", HERE / "single.txt"
RENEW = "python3 -m tools.locks.renew"
# What makes a source package's metadata. The last three are for Python 3.10.
BUILDER = (
    *("scikit-build-core==1.1.2", "packaging==26.4", "pathspec==1.1.1"),
    *("tomli==2.5.0", "exceptiongroup==1.3.2", "typing_extensions==4.16.0"),
)


def normal(requirement: str) -> str:
    """With the name as indices spell it."""
    name, equal, version = requirement.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower() + equal + version


@cache
def table() -> dict[str, str]:
    """name==version to the lines that pip takes, of single.txt."""
    text = SINGLE.read_text(encoding="utf-8")
    blocks = re.findall(r"^(\S+==\S+) \\\n((?: +--hash=\S+(?: \\)?\n?)+)", text, re.MULTILINE)
    return {name: f"{name} \\\n{hashes}" for name, hashes in blocks}


def options(paths: Paths, requirements: tuple[str, ...]) -> list[str]:
    """pip's words for these packages (name==version), each with its hashes."""
    requirements = tuple(map(normal, requirements))
    missing = [name for name in requirements if name not in table()]
    if missing:
        raise SetupError(f"{', '.join(missing)} is not among the locked packages", f"run: {RENEW}")
    folder = paths.cache / "locked"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hash_text(*requirements)[:16]}.txt"
    file.write_text("\n".join(table()[name].rstrip() for name in requirements) + "\n")
    return ["--require-hashes", "-r", str(file)]
