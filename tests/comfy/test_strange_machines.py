"""The first start on a machine that is not like ours: each row of a table is one.

tests/faults/first_start.py imports the library, runs `doctor`, computes attention, and writes and
reads a profile. tests/faults/README.md says how each machine is made. A means that is missing
fails a test; none is skipped on Linux.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import comfy_server
import pytest
from strange import LONG, NAME, STRANGE, require, require_root

START = Path(__file__).parents[1] / "faults" / "first_start.py"
LIBRARY = comfy_server.REPO / "native" / "python" / "paroattention"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="made by Linux's means")


@dataclass(frozen=True)
class Machine:
    """before: the command in front; flags: Python's; environment: None takes a variable away.
    holds: what the results say if the machine is really such a one."""

    before: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    environment: dict = field(default_factory=dict)
    folder: str = "profiles"
    name: str = "first"
    holds: tuple[tuple[str, object], ...] = ()
    packages: str = ""


# AVX, which numpy's wheels need by now, and no AVX2: what needs it ends the process.
NO_AVX2 = ("qemu-x86_64", "-cpu", "SandyBridge")
NO_PASSWORD_ENTRY = ("unshare", "--user", "--map-user=12345")
ASCII = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
MACHINES = {
    "ours": Machine(),
    "no AVX2": Machine(before=NO_AVX2, holds=(("isas", ["scalar"]),)),
    "one core": Machine(
        before=("taskset", "-c", "0"),
        environment={"OMP_NUM_THREADS": None},
        holds=(("threads", 1),),
    ),
    "no display": Machine(environment={"DISPLAY": None, "WAYLAND_DISPLAY": None}),
    "no home folder": Machine(
        environment={"HOME": "/nonexistent"}, holds=(("home", "/nonexistent"),)
    ),
    "no HOME": Machine(environment={"HOME": None}, holds=(("home", None),)),
    "a user without a name": Machine(
        before=NO_PASSWORD_ENTRY, environment={"HOME": None}, holds=(("uid", 12345),)
    ),
    "long names that are not English": Machine(
        folder=f"{STRANGE}/{LONG}", name=NAME, packages=f"{STRANGE}/{LONG}"
    ),
    "the same with ASCII alone": Machine(
        environment=ASCII, folder=f"{STRANGE}/{LONG}", name=NAME, packages=f"{STRANGE}/{LONG}"
    ),
    "python -I": Machine(flags=("-I",)),
    "umask 077": Machine(
        before=("sh", "-c", 'umask 077; exec "$@"', "sh"), holds=(("mode", "0o600"),)
    ),
    "the C locale": Machine(environment={"LC_ALL": "C"}, holds=(("comma", "."),)),
    "a decimal comma": Machine(environment={"LC_ALL": "de_DE.UTF-8"}, holds=(("comma", ","),)),
    "Turkish": Machine(environment={"LC_ALL": "tr_TR.UTF-8"}, holds=(("comma", ","),)),
    "a time zone far away": Machine(environment={"TZ": "Pacific/Kiritimati"}),
    "a time zone that is none": Machine(environment={"TZ": ":/no/such/zone"}),
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory, locales):
    """starts(name): what was found on a machine. The slow one is begun with the first."""
    base, running = tmp_path_factory.mktemp("machines"), {}

    def begin(name: str) -> None:
        if name not in running:
            running[name] = _begin(MACHINES[name], base / str(len(running)), locales)

    def found(name: str) -> dict:
        begin("no AVX2")
        begin(name)
        child, folder = running[name]
        out, _ = child.communicate(timeout=600)
        assert child.returncode == 0, out.decode(errors="replace")[-3000:]
        return json.loads((folder / "first.json").read_text(encoding="utf-8")) | {"folder": folder}

    yield found
    for child, _ in running.values():
        child.kill()


def _begin(machine: Machine, base: Path, locales: Path):
    folder = base / machine.folder
    folder.mkdir(parents=True)
    paths = os.environ.get("PYTHONPATH", "")
    if machine.packages:
        packages = base / machine.packages / "packages"
        shutil.copytree(Path(_package()), packages / "paroattention")
        paths = f"{packages}{os.pathsep}{paths}"
    environment = os.environ | {
        "LOCPATH": str(locales),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": paths,
    }
    environment |= {name: value for name, value in machine.environment.items() if value is not None}
    for name, value in machine.environment.items():
        if value is None:
            environment.pop(name, None)
    for program in machine.before[:1]:
        require(program, {"qemu-x86_64": "qemu-user"}.get(program, "util-linux"))
    command = [
        *machine.before,
        sys.executable,
        *machine.flags,
        str(START),
        str(folder),
        machine.name,
    ]
    child = subprocess.Popen(
        command, env=environment, cwd=base, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return child, folder


def _package() -> str:
    import paroattention

    return str(Path(paroattention.__file__).parent)


@pytest.mark.parametrize("name", MACHINES)
def test_the_first_start(starts, name):
    machine = MACHINES[name]
    if machine.before == NO_PASSWORD_ENTRY:
        require_root()
    found, plain = starts(name), starts("ours") if name != "ours" else None
    for what, value in machine.holds:
        assert found[what] == value, f"this is no machine with {name}"
    assert found["same"] and found["captured"] and found["ours"] and not found["reasons"]
    assert found["exact"] < 1e-5 and found["exact"] < found["sparse"] < 1
    assert "no such profile.json" in found["refused"] and len(found["refused"]) < 2000
    code, text = found["doctor"]
    assert code == 0 and "8 of 8 kernels compute rightly" in text
    report = (found["folder"] / "doctor.txt").read_text(encoding="utf-8")
    assert report == text and str(found["folder"]) not in text
    lines = (found["folder"] / "runlog.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 * 4 and all(json.loads(line) for line in lines)
    names = {path.name for path in found["folder"].iterdir()} - {"packages"}
    first = {f"{machine.name}.json", f"{machine.name}.capture.safetensors"}
    assert names == first | {"doctor.txt", "first.json", "runlog.jsonl"}
    if machine.packages:
        assert LONG.encode().hex() in found["library"]
    # To the byte the profile that every machine makes, whatever its numbers look like.
    if plain is not None:
        # Without AVX2 torch adds up in another order.
        assert found["content"] == plain["content"] or name == "no AVX2"
        assert found["sparse"] == pytest.approx(plain["sparse"], rel=0.02)
