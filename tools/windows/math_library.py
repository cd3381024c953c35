"""A math library that numpy can be imported with: wine's own has stubs for complex numbers.

numpy's modules import C's functions from a name that wine always answers itself. In a copy of
numpy that name is written over by one of the same length, and a DLL of that name lies beside
python.exe: complex functions are its own, all others are passed on to wine's.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ..setup.steps import SetupError, run_logged

SOURCE = Path(__file__).with_name("math_library.cpp")
THEIRS = b"api-ms-win-crt-math-l1-1-0.dll"
OURS = b"paro-numpy-complex-numbers.dll"
NUMBERS = ("abs", "arg", "real", "imag", "pow", "exp", "log", "sqrt")
NUMBERS += ("sin", "cos", "tan", "sinh", "cosh", "tanh")
# In float, double and long double.
COMPLEX = frozenset(f"c{name}{suffix}" for name in NUMBERS for suffix in ("", "f", "l"))


def imported(tables: str, library: bytes) -> set[str]:
    """What a module imports from a library, from `objdump -p`."""
    names: set[str] = set()
    for part in tables.split("DLL Name: ")[1:]:
        first, _, rest = part.partition("\n")
        if first.strip() == library.decode():
            # "<address> <hint> <name>", to the first empty line.
            rows = rest.partition("\n\n")[0].splitlines()
            names |= {row.split()[-1] for row in rows if re.match(r"\s+[0-9a-f]+\s+\d+\s", row)}
    return names


def definition(names: set[str]) -> str:
    """The linker's list of what the DLL offers."""
    lines = [
        f"  {name} = {f'paro_{name}' if name in COMPLEX else f'ucrtbase.{name}'}"
        for name in sorted(names)
    ]
    return "\n".join([f"LIBRARY {OURS.decode()}", "EXPORTS", *lines]) + "\n"


def install(python: Path, log: Path) -> int:
    """Makes numpy of a Windows Python importable under wine; how many functions it imports."""
    names: set[str] = set()
    modules = []
    for module in sorted((python / "Lib" / "site-packages" / "numpy").rglob("*.pyd")):
        if THEIRS in module.read_bytes():
            names |= imported(_tables(module), THEIRS)
            modules.append(module)
    if not names:
        raise SetupError(f"numpy in {python} imports no function of {THEIRS.decode()}")
    offered = python / "math_library.def"
    offered.write_text(definition(names), encoding="utf-8")
    run_logged(
        "building numpy's math library",
        [
            *("x86_64-w64-mingw32-g++-posix", "-std=c++20", "-O2", "-static", "-shared", "-s"),
            *(str(SOURCE), str(offered), "-o", str(python / OURS.decode())),
        ],
        log,
        "see what the compiler says of tools/windows/math_library.cpp",
    )
    for module in modules:
        module.write_bytes(module.read_bytes().replace(THEIRS, OURS))
    return len(names)


def _tables(module: Path) -> str:
    done = subprocess.run(
        ["x86_64-w64-mingw32-objdump", "-p", str(module)], capture_output=True, text=True
    )
    if done.returncode:
        raise SetupError(f"objdump cannot read {module.name}: {done.stderr.strip()[:200]}")
    return done.stdout
