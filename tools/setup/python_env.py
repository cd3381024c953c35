"""The virtual environment and the packages in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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


def ensure_packages(paths: Paths, comfyui: Path, pinned: bool) -> None:
    """Our packages and ComfyUI's. `pinned`: it is the ComfyUI that constraints.txt was made for."""
    ours = (HERE / "requirements.txt").read_text(encoding="utf-8")
    constraints = (HERE / "constraints.txt").read_text(encoding="utf-8")
    theirs = comfy_requirements(comfyui)

    def build() -> None:
        wanted = paths.cache / "comfyui-requirements.txt"
        wanted.write_text(theirs, encoding="utf-8")
        log = paths.logs / "packages.log"
        torch = [line for line in ours.splitlines() if line.startswith("torch")]
        limits = ["-c", str(HERE / "constraints.txt")] if pinned else []
        install(paths, "torch (the largest download)", torch, log)
        files = ["-r", str(HERE / "requirements.txt"), "-r", str(wanted)]
        install(paths, "Python packages", [*files, *limits], log)

    stage(paths.stamps / "packages", hash_text(ours, constraints, theirs, str(pinned)), build)


def ensure_builder(paths: Paths) -> None:
    """What makes a source package's metadata, where the environment has no packages yet."""
    command = [str(paths.python), "-c", "import scikit_build_core"]
    if subprocess.run(command, env=paths.environment(), capture_output=True).returncode == 0:
        return
    ours = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in ours if line.startswith("scikit-build-core")]
    install(paths, "the builder of source packages", wanted, paths.logs / "packages.log")


def install(paths: Paths, name: str, arguments: list[str], log: Path) -> None:
    command = [str(paths.python), *PIP, "install", "--progress-bar", "off", *arguments]
    run_logged(name, command, log, NETWORK, env=paths.environment())
