"""What a finished wheel holds and needs, read from the file itself. Any fault is an error."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tempfile
import zipfile
from pathlib import Path

from ..setup.paths import REPO
from ..setup.steps import SetupError

MOST_BYTES = 30 << 20
GLIBC = (2, 28)
# What every Linux has, and torch's own library.
LINUX = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}
LINUX |= {"ld-linux-x86-64.so.2", "libtorch_cpu.so"}
# What every Windows has.
WINDOWS = {"kernel32.dll", "msvcrt.dll", "user32.dll", "gdi32.dll", "shell32.dll", "advapi32.dll"}
WINDOWS |= {"opengl32.dll", "ole32.dll", "imm32.dll", "winmm.dll", "ws2_32.dll", "torch_cpu.dll"}
# What a library may offer to others.
EXPORTS = {
    "_core": {"PyInit__core"},
    "_torch_ops": {"paro_register_operators", "paro_last_status", "paro_last_error"},
}
# Folders of the machine that built it. Emscripten calls the home in its own file system web_user.
PLACES = re.compile(rb"/(?!home/web_user)(?:home|root|work|Users|tmp|build)/[\w.@/+-]{3,}")


class Faults(list):
    def raise_any(self, wheel: Path) -> None:
        if self:
            raise SetupError(f"{wheel.name} must not be shipped: " + "; ".join(self))


def check(wheel: Path, system: str) -> list[tuple[str, int]]:
    """(file, bytes) of a wheel in which nothing is wrong; SetupError with all that is."""
    faults = Faults()
    size = wheel.stat().st_size
    if size > MOST_BYTES:
        faults.append(f"it has {size >> 20} MiB, at most {MOST_BYTES >> 20} are wanted")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [(entry.filename, entry.file_size) for entry in archive.infolist()]
        if archive.testzip():
            faults.append("the archive is damaged")
        for name, _ in names:
            if "comfy" in name.split("/")[0]:
                faults.append(f"{name} is the plugin's, not the package's")
            if re.search(r"\.(so|pyd|dll|exe)$|/paro-viewer$", name):
                faults += _binary(Path(archive.extract(name, folder)), system)
            content = archive.read(name)
            content = gzip.decompress(content) if name.endswith(".gz") else content
            faults += [f"{name} names {place}" for place in places(content)]
        faults += materials(archive)
    faults.raise_any(wheel)
    return names


def materials(archive: zipfile.ZipFile) -> list[str]:
    """What is wrong with the list of materials: every part has its licence, and each licence that
    is not the package's own belongs to a part."""
    info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    try:
        bill = json.loads(archive.read(f"{info}/sboms/paroattention.cdx.json"))
    except (KeyError, ValueError):
        return ["it has no list of materials that can be read"]
    told = {one["value"]: part["name"] for part in bill["components"] for one in part["properties"]}
    shipped = {
        name.removeprefix(f"{info}/")
        for name in archive.namelist()
        if name.startswith(f"{info}/licenses/")
    } - {"licenses/LICENSE"}
    faults = [f"{told[name]} has no {name}" for name in sorted(told.keys() - shipped)]
    return faults + [f"{name} is of no listed part" for name in sorted(shipped - told.keys())]


def places(content: bytes) -> list[str]:
    """Folders of the building machine in a file."""
    found = {place.decode() for place in PLACES.findall(content)}
    if str(REPO).encode() in content:
        found.add(str(REPO))
    return sorted(found)[:5]


def _binary(file: Path, system: str) -> list[str]:
    return _elf(file) if system == "linux" else _pe(file)


def _elf(file: Path) -> list[str]:
    faults = []
    dynamic = _output(["readelf", "-W", "-d", str(file)])
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic))
    faults += [f"{file.name} needs {name}" for name in sorted(needed - LINUX)]
    if "RUNPATH" in dynamic or "RPATH" in dynamic:
        faults.append(f"{file.name} has a search path of its own")
    symbols = _output(["readelf", "-W", "--dyn-syms", str(file)])
    versions = {tuple(map(int, one.split("."))) for one in re.findall(r"@GLIBC_([\d.]+)", symbols)}
    newest = max(versions, default=(0,))
    if newest[:2] > GLIBC:
        faults.append(f"{file.name} needs glibc {'.'.join(map(str, newest))}")
    if any(name in symbols for name in ("GLIBCXX_", "CXXABI_")):
        faults.append(f"{file.name} needs a C++ runtime of the system")
    offered = set(re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ +([\w.]+)", symbols))
    return faults + _offers(file, offered)


def _pe(file: Path) -> list[str]:
    tables = _output(["x86_64-w64-mingw32-objdump", "-p", str(file)])
    needed = {name.lower() for name in re.findall(r"DLL Name: (\S+)", tables)}
    needed = {name for name in needed if not re.fullmatch(r"python3\d+\.dll", name)}
    faults = [f"{file.name} needs {name}" for name in sorted(needed - WINDOWS)]
    # Its last table of exports ends with an empty line. Some versions print more than the name.
    exports = tables.partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    offered = {line.split()[-1] for line in exports.splitlines() if re.match(r"\s+\[", line)}
    return faults + _offers(file, offered)


def _offers(file: Path, offered: set[str]) -> list[str]:
    allowed = EXPORTS.get(file.name.partition(".")[0], set())
    faults = [f"{file.name} does not offer {name}" for name in sorted(allowed - offered)]
    foreign = sorted(offered - allowed)
    if allowed and foreign:
        faults.append(f"{file.name} offers {len(foreign)} names more, such as {foreign[0]}")
    return faults


def _output(command: list[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SetupError(f"{command[0]} cannot read {command[-1]}: {run.stderr.strip()[:200]}")
    return run.stdout
