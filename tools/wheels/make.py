"""From sources to what is published: checked wheels, the source package, the plugin's archive."""

from __future__ import annotations

import time
from pathlib import Path

from ..setup.paths import Paths
from ..setup.steps import hash_file, say
from ..web_viewer import build as web_viewer
from . import archive, check, components, pack, source
from .build import Build, check_host
from .inputs import Inputs

SYSTEMS = ("linux", "windows")


def make(paths: Paths, systems: tuple[str, ...], out: Path, *, quick: bool = False) -> list[Path]:
    """Builds, packs and checks a wheel for each system, the source package and the plugin's
    archive. Raises SetupError."""
    check_host()
    version = pack.require_one_version()
    say(f"Wheels of paroattention {version}")
    inputs, made = Inputs(paths, quick=quick), []
    page = web_viewer.ensure(paths)
    for system in systems:
        started = time.monotonic()
        built = Build(inputs, system).run() | web_viewer.packed(page)
        wheel = pack.wheel(system, built, components.of(inputs, page, system), out)
        _tell(wheel, check.check(wheel, system), time.monotonic() - started)
        made.append(wheel)
    for path in (source.make(inputs, out), archive.make(out)):
        _tell(path, [], 0)
        made.append(path)
    return made


def _tell(path: Path, files: list[tuple[str, int]], seconds: float) -> None:
    say(f"\n{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    say(f"  sha256 {hash_file(path)}")
    for name, size in files:
        if size > 100_000 or "licenses/" in name:
            say(f"  {size:>10} {name}")
    if files:
        small = sum(size <= 100_000 for _, size in files)
        say(f"  and {small} small files; nothing to object to; made in {seconds:.0f} s")
