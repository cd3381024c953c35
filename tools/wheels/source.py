"""The source package, for systems without a wheel: the same files give the same bytes."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from ..setup.paths import REPO
from ..setup.steps import SetupError, run_logged
from .check import places
from .inputs import Inputs
from .pack import project

# What a build reads; the nodes, tests and pictures are not in it.
_PARTS = {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "native", "viewer"}
_MADE = {"PKG-INFO", ".gitignore"}


def make(inputs: Inputs, folder: Path) -> Path:
    """Writes and checks it. Raises SetupError."""
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import sys; sys.path.insert(0, 'native/build_backend');"
        " import paro_build; paro_build.build_sdist(sys.argv[1])"
    )
    # The earliest that its compression can say.
    env = inputs.paths.environment(SOURCE_DATE_EPOCH="315532800")
    command = [str(inputs.paths.python), "-c", code, str(folder)]
    todo = "read the message in the log"
    run_logged("packing the sources", command, inputs.log, todo, cwd=REPO, env=env)
    about = project()
    path = folder / f"{about['name']}-{about['version']}.tar.gz"
    check(path)
    return path


def check(path: Path) -> list[str]:
    """The names in it, below its one folder; SetupError with all that does not belong there."""
    faults, names = [], []
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            names.append(name)
            if name.split("/")[0] not in _PARTS | _MADE:
                faults.append(f"{name} is not part of the library")
            if re.search(r"\.(so|pyd|dll|exe|whl)$", name):
                faults.append(f"{name} is a compiled file")
            file = archive.extractfile(member)
            faults += [f"{name} names {place}" for place in places(file.read() if file else b"")]
    held = {name.split("/")[0] for name in names}
    faults += [f"{name} is missing" for name in sorted(_PARTS - held)]
    if faults:
        path.unlink()
        raise SetupError(f"{path.name} must not be shipped: " + "; ".join(faults[:20]))
    return names
