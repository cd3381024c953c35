"""python3 -m tools.locks.renew: both lists of hashes anew, by uv, from the pinned versions.

Needs the set-up (`python3 run.py test`), for ComfyUI's list of what it needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..setup import comfyui, python_env
from ..setup.paths import Paths
from ..setup.steps import SetupError, say
from ..wheels import inputs, places
from ..windows import environment
from . import BUILDER, PACKAGES, RENEW, SINGLE, normal

OLDEST = "3.10"
SETUP = Path(python_env.__file__).parent
# What .ci installs by name: the formatter whose breaks are the style, tests side by side, the
# kernels' compiler where the system has none, and what prints machine code.
CHECKS = (
    *("clang-format==14.0.6", "pytest-xdist==3.8.0", "execnet==2.1.2"),
    *("nvidia-cuda-crt==13.0.88", "nvidia-nvvm==13.0.88", "nvidia-cuda-runtime==13.0.96"),
    *("nvidia-cuda-cccl==13.0.85", "triton==3.6.0"),
)


def single() -> list[str]:
    """Every package that is installed one by one."""
    found = {inputs.ZIG, inputs.PYBIND11, inputs.NVCC, *inputs.NVRTC, places.UV, *CHECKS}
    found |= {*inputs.WINDOWS_PYTHONS.values(), *BUILDER}
    for version in inputs.WINDOWS_PYTHONS:
        found |= set(environment.packages(version))
    return sorted(found)


def groups(requirements: list[str]) -> list[list[str]]:
    """Lists in which no package has two versions: uv takes one of each."""
    found: list[dict[str, str]] = []
    for one in requirements:
        name = normal(one).partition("==")[0]
        free = next((group for group in found if name not in group), None)
        if free is None:
            found.append(free := {})
        free[name] = one
    return [list(group.values()) for group in found]


def compile_list(uv: Path, wanted: str, *words: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "wanted.txt"
        source.write_text(wanted, encoding="utf-8")
        command = [str(uv), "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", OLDEST, "--no-annotate", "--no-header", *words, str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"uv could not lock:\n{done.stderr.strip()}")
    return done.stdout


def get_uv(paths: Paths) -> Path:
    """Of the version that is pinned; into the cache."""
    folder = paths.cache / "uv"
    if not (folder / "bin" / "uv").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        command = [str(paths.python), *python_env.PIP, "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), places.UV], check=True)
    return folder / "bin" / "uv"


def main() -> int:
    paths = Paths()
    uv = get_uv(paths)
    comfy, _ = comfyui.ensure(paths)
    ours = "\n".join(python_env.own_requirements())
    limits = str(SETUP / "constraints.txt")
    wanted = f"{ours}\n{python_env.comfy_requirements(comfy)}"
    head = f"# By {RENEW}, from tools/setup and ComfyUI {comfyui.VERSION}'s own list.\n"
    PACKAGES.write_text(head + compile_list(uv, wanted, "-c", limits), encoding="utf-8")
    found = "".join(compile_list(uv, "\n".join(one), "--no-deps") for one in groups(single()))
    SINGLE.write_text(f"# By {RENEW}.\n{found}", encoding="utf-8")
    for file in (PACKAGES, SINGLE):
        say(f"{file.name}: {file.read_text(encoding='utf-8').count('==')} lines of packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
