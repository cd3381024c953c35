"""Environments in which nobody has ever built anything: one for each CPython, to try a wheel in."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..setup import system
from ..setup.steps import SetupError, run_logged
from .inputs import KEYRING, Inputs

UV = "uv==0.13.9"
# A release of Debian with a CPython that this machine may lack.
DEBIAN = {"3.14": "forky"}
# Trust in what the packages come from, and the names of hosts, are the machine's own.
_SHARED = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


@dataclass
class Place:
    """An environment with pip alone. root: the folder that is / to its programs, None for this
    machine's own."""

    version: str
    python: str
    log: Path
    uv: str
    root: Path | None = None

    def outside(self, path: str) -> Path:
        """Where a path of the environment lies on this machine."""
        return Path(path) if self.root is None else self.root / path.lstrip("/")

    def give(self, source: Path, target: str) -> str:
        """Copies a file or folder into the environment; returns its path there."""
        outside = self.outside(target)
        if source.is_dir():
            shutil.rmtree(outside, ignore_errors=True)
            # What git ignores is of other environments.
            skip = shutil.ignore_patterns(".git", ".cache", "out", "__pycache__", "*.so")
            shutil.copytree(source, outside, ignore=skip)
        else:
            outside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, outside)
        return target

    def install(self, name: str, words: list[str]) -> None:
        command = [self.uv, "pip", "install", "--quiet", "--python", self.python, *words]
        self.run(name, command)

    def run(self, name: str, command: list[str], **more) -> None:
        run_logged(name, self._command(command, **more), self.log, "read the message in the log")

    def ask(self, command: list[str], seconds: float = 1200, **more) -> tuple[int, str]:
        """A program's exit code and all that it wrote."""
        done = subprocess.run(
            self._command(command, **more), capture_output=True, text=True, timeout=seconds,
            stdin=subprocess.DEVNULL, errors="replace", check=False,
        )  # fmt: skip
        text = done.stdout + done.stderr
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{text}")
        return done.returncode, text

    def _command(self, command: list[str], *, cwd: str = "/", **environment: str) -> list[str]:
        named = [f"{name}={value}" for name, value in environment.items()]
        start = ["env", "-C", cwd, "-u", "PYTHONPATH", *named, *command]
        return start if self.root is None else ["chroot", str(self.root), *start]


def make(inputs: Inputs, version: str, python: Path | None) -> Place:
    """A fresh environment. python: this machine's interpreter, or None for Debian's.

    Raises SetupError where neither can be had.
    """
    log = inputs.paths.logs / f"trial-{version}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    uv = inputs.folder / "uv"
    if not (uv / "bin" / "uv").is_file():
        inputs.pip_unpack(UV, uv)
    folder = inputs.folder / f"trial-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    program = str(uv / "bin" / "uv")
    if python is not None:
        place = Place(version, str(folder / "bin" / "python"), log, program)
        create = ["venv", "--quiet", "--seed", "--python", str(python), str(folder)]
        place.run(f"environment of CPython {version}", [program, *create])
        return place
    root = _debian(inputs, version)
    shutil.copy2(program, root / "usr" / "local" / "bin" / "uv")
    place = Place(version, "/trial/bin/python", log, "/usr/local/bin/uv", root)
    shutil.rmtree(root / "trial", ignore_errors=True)
    create = ["venv", "--quiet", "--seed", "--python", f"/usr/bin/python{version}", "/trial"]
    place.run(f"environment of CPython {version}", [place.uv, *create])
    return place


def _debian(inputs: Inputs, version: str) -> Path:
    """A Debian of its own with that CPython."""
    if version not in DEBIAN or not system.is_root() or not shutil.which("debootstrap"):
        raise SetupError(
            f"CPython {version} is not on this machine, and Debian's is taken by root with"
            " debootstrap alone",
            "install it with pyenv, or run as root: apt-get install debootstrap",
        )
    root = inputs.folder / f"debian-{DEBIAN[version]}"
    if not (root / "usr" / "bin" / f"python{version}").exists():
        own = system.debian_release()
        source = system.find_source(own, Path("/etc/apt")) if own else None
        if source is None:
            raise SetupError("debootstrap needs a Debian that takes packages from an archive")
        shutil.rmtree(root, ignore_errors=True)
        packages = f"python{version},python{version}-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}"]
        command += [f"--include={packages}", DEBIAN[version], str(root), source[0]]
        # All of Debian's later releases are made by the same script.
        command.append("/usr/share/debootstrap/scripts/sid")
        inputs.run(f"a Debian with CPython {version}", command)
    if not (root / "proc" / "cpuinfo").exists():
        # torch and psutil ask it for the processor and the memory.
        inputs.run("mounting /proc there", ["mount", "-t", "proc", "proc", str(root / "proc")])
    for name in _SHARED:
        if os.path.isfile(name):
            shutil.copy2(name, root / name.lstrip("/"))
    return root
