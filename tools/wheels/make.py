"""From sources to checked wheels."""

from __future__ import annotations

import time
from pathlib import Path

from ..setup.paths import Paths
from ..setup.steps import hash_file, say
from . import check, pack
from .build import Build, check_host
from .inputs import Inputs

SYSTEMS = ("linux", "windows")


def make(paths: Paths, systems: tuple[str, ...], out: Path) -> list[Path]:
    """Builds, packs and checks a wheel for each system. Raises SetupError."""
    check_host()
    version = pack.require_one_version()
    say(f"Wheels of paroattention {version}")
    inputs, made = Inputs(paths), []
    for system in systems:
        started = time.monotonic()
        built = Build(inputs, system).run()
        wheel = pack.wheel(system, built, inputs.licenses(), out)
        files = check.check(wheel, system)
        say(f"\n{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")
        say(f"  sha256 {hash_file(wheel)}")
        for name, size in files:
            if size > 100_000 or "licenses/" in name:
                say(f"  {size:>10} {name}")
        say(f"  and {sum(size <= 100_000 for _, size in files)} small files; nothing to object to")
        say(f"  made in {time.monotonic() - started:.0f} s")
        made.append(wheel)
    return made
