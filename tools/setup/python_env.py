"""The virtual environment and the packages in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from .. import locks
from .paths import Paths
from .steps import SetupError, hash_text, run_logged, stage

HERE = Path(__file__).parent
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
NETWORK = "check that this machine reaches the package index, then run the same command again"
# Hundreds of megabytes that ComfyUI runs without.
LEFT_OUT = ("comfyui-workflow-templates", "comfyui-embedded-docs", "comfy-angle")


def check_python() -> None:
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        version = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"This is Python {version}; torch 2.11 exists for 3.10 to 3.14",
            "use one of those versions, for instance: python3.12 run.py",
        )


def ensure_venv(paths: Paths) -> None:
    def build() -> None:
        shutil.rmtree(paths.venv, ignore_errors=True)
        run_logged(
            "virtual environment",
            [sys.executable, "-m", "venv", str(paths.venv)],
            paths.logs / "venv.log",
            "install Python's venv module (on Debian: apt-get install python3-venv)",
        )

    if not works(paths.python):
        (paths.stamps / "venv").unlink(missing_ok=True)
    stage(paths.stamps / "venv", hash_text(sys.version, sys.base_prefix), build)


def works(python: Path) -> bool:
    try:
        return (
            subprocess.run([str(python), "-c", "import pip"], capture_output=True).returncode == 0
        )
    except OSError:
        return False


def comfy_requirements(comfyui: Path) -> str:
    """ComfyUI's requirements without those that it runs without."""
    lines = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if re.split(r"[^A-Za-z0-9._-]", line)[0] not in LEFT_OUT]
    return "\n".join(kept) + "\n"


def own_requirements() -> list[str]:
    """The lines of requirements.txt that name a package."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def ensure_packages(paths: Paths, comfyui: Path, pinned: bool) -> None:
    """Our packages and ComfyUI's. `pinned`: it is the ComfyUI that the locked list was made for;
    each file must then have the hash that is known. Another one's needs are its own."""
    ours, theirs = "\n".join(own_requirements()), comfy_requirements(comfyui)
    locked = locks.PACKAGES.read_text(encoding="utf-8")

    def build() -> None:
        log = paths.logs / "packages.log"
        if pinned:
            words = ["--no-deps", "--require-hashes", "-r", str(locks.PACKAGES)]
            install(paths, "Python packages (torch is the largest download)", words, log)
            return
        wanted = paths.cache / "comfyui-requirements.txt"
        wanted.write_text(theirs, encoding="utf-8")
        torch = [line for line in own_requirements() if line.startswith("torch")]
        install(paths, "torch (the largest download)", torch, log)
        files = ["-r", str(HERE / "requirements.txt"), "-r", str(wanted)]
        install(paths, "Python packages", files, log)

    stage(paths.stamps / "packages", hash_text(ours, locked, theirs, str(pinned)), build)


def ensure_builder(paths: Paths) -> None:
    """What makes a source package's metadata, where the environment has no packages yet."""
    command = [str(paths.python), "-c", "import scikit_build_core, packaging, pathspec"]
    if subprocess.run(command, env=paths.environment(), capture_output=True).returncode == 0:
        return
    words = ["--no-deps", *locks.options(paths, locks.BUILDER)]
    install(paths, "the builder of source packages", words, paths.logs / "packages.log")


def install(paths: Paths, name: str, arguments: list[str], log: Path) -> None:
    command = [str(paths.python), *PIP, "install", "--progress-bar", "off", *arguments]
    run_logged(name, command, log, NETWORK, env=paths.environment())
