"""Emscripten: the system's own where it is new enough, else Debian 13's in a folder of its own.

Debian 12's is too old for C++20 as it is written here. The folder takes about 3 GB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from ..setup import system
from ..setup.paths import Paths
from ..setup.python_env import NETWORK
from ..setup.steps import SetupError, run_logged, say, stage

OLDEST = (3, 1, 60)
RELEASE = "trixie"
PACKAGES = "emscripten,cmake,ninja-build,nlohmann-json3-dev"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TODO = f"install Emscripten {'.'.join(map(str, OLDEST))} or newer, and put emcc on the PATH"


class Toolchain:
    """work: a folder that the compiler sees as `seen`."""

    def __init__(self, paths: Paths):
        self.log = paths.logs / "web-viewer.log"
        self.name = own_version()
        self.root: Path | None = None
        if self.name:
            self.work = paths.cache / "web-viewer"
            self.seen = str(self.work)
        else:
            self.root = paths.cache / "emscripten-chroot"
            ensure_chroot(self.root, self.log)
            self.name = f"Emscripten of Debian's {RELEASE}"
            self.work, self.seen = self.root / "paro", "/paro"
        self.work.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, command: list[str]) -> None:
        """A command in the work folder."""
        # A certificate of this machine's would only be missed there.
        env = {key: value for key, value in os.environ.items() if key != "NODE_EXTRA_CA_CERTS"}
        if self.root is not None:
            words = " ".join(f"'{word}'" for word in command)
            env |= {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            command = ["chroot", str(self.root), "/bin/sh", "-c", f"cd {self.seen} && {words}"]
        todo = "read the compiler's message in the log; after a fix run the same command again"
        run_logged(name, command, self.log, todo, cwd=self.work, env=env)

    def version(self) -> str:
        if self.root is None:
            return self.name.split()[-1]
        file = self.root / "usr/share/emscripten/emscripten-version.txt"
        return file.read_text(encoding="utf-8").strip().strip('"')

    def licence(self) -> Path:
        """Of the libraries that come into the program with the compiler."""
        if self.root is not None:
            return self.root / "usr/share/doc/emscripten/copyright"
        return Path(shutil.which("emcc") or "").resolve().parent / "LICENSE"

    def headers(self) -> Path:
        """The folder that holds nlohmann/json's headers."""
        return (self.root or Path("/")) / "usr"


def ready(paths: Paths) -> bool:
    """Whether the compiler is there: nobody who runs the tests has to wait for 3 GB of it."""
    made = (paths.cache / "emscripten-chroot").with_suffix(".stamp").is_file()
    return bool(own_version()) or (made and system.is_root())


def own_version() -> str:
    """The system's own compiler, or "" where it is missing or too old."""
    program = shutil.which("emcc")
    if program is None:
        return ""
    told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", told)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        return ""
    return f"Emscripten {found[0]}"


def ensure_chroot(root: Path, log: Path) -> None:
    """Debian with the compiler, made by debootstrap."""

    def build() -> None:
        own = system.debian_release()
        source = system.find_source(own, Path("/etc/apt")) if own else None
        if source is None or not system.is_root():
            raise SetupError("The viewer for the page needs Emscripten, which is not here", TODO)
        if not shutil.which("debootstrap"):
            system.apt_run(["update"], log)
            system.apt_run(["install", "-y", "--no-install-recommends", "debootstrap"], log)
        say("Emscripten comes from Debian's archive: about 3 GB, once.")
        shutil.rmtree(root, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}"]
        command += [f"--include={PACKAGES}", RELEASE, str(root), source[0]]
        run_logged("a Debian with Emscripten", command, log, NETWORK)

    stage(root.with_suffix(".stamp"), f"{RELEASE} {PACKAGES}", build)
