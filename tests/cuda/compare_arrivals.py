"""python tests/cuda/compare_arrivals.py [--nvcc NVCC | --nvrtc LIBRARY --include FOLDER] [...]

Shows that the library for racecheck differs from the usual one in its arrivals alone. Compiles
every source of kernels for sm_90a as device_code.cmake does, makes the cubins for racecheck of them
(native/cuda/tools/every_lane_arrives.py), disassembles both and compares them kernel by kernel,
instruction by instruction. What may differ in a Hopper kernel of attention: `@!P SYNCS.ARRIVE`
loses its predicate, and one UMOV, from which the barriers' count is made, is 32 times as great.
Ends with 1 where anything else differs, or where a Hopper kernel is not among them. About a minute.
cuobjdump needs nvdisasm on the path. --nvrtc and --include are PARO_NVRTC and PARO_NVRTC_INCLUDE of
device_code.cmake: the compiler of the wheels.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "native" / "cuda"
sys.path.insert(0, str(CUDA / "tools"))

import every_lane_arrives  # noqa: E402

# As in device_code.cmake, but for line numbers.
FLAGS = ["-DNDEBUG", "-cubin", "-arch=sm_90a", f"-I{CUDA / 'include'}", f"-I{CUDA / 'src'}"]
FLAGS += [f"-I{ROOT / 'native/core/include'}"]
ARRIVE = re.compile(r"@!P\d (SYNCS\.ARRIVE\.TRANS64\.A1T0 .*)")
COUNT = re.compile(r"UMOV (UR\d+), (0x[0-9a-f]+)")


def compiler(nvcc: str, nvrtc: str, includes: list[str]) -> list[str]:
    """What device_code.cmake compiles with, but for the files."""
    if not nvrtc:
        return [nvcc, "-std=c++20", "-O3", "--expt-relaxed-constexpr", *FLAGS]
    tools = CUDA / "tools"
    command = [sys.executable, str(tools / "nvrtc_compile.py"), "--nvrtc", nvrtc, "--std=c++20"]
    folders = [f"-I{folder}" for folder in (tools / "nvrtc_std", *includes)]
    return [*command, "-default-device", *FLAGS, *folders]


def compiled(command: list[str], source: Path, folder: Path) -> Path:
    cubin = folder / f"{source.stem}.cubin"
    subprocess.run([*command, str(source), "-o", str(cubin)], check=True)
    return cubin


def instructions(cuobjdump: str, cubin: Path) -> dict[str, list[str]]:
    """The instructions of each kernel, with predicates and operands."""
    command = [cuobjdump, "-sass", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*Function : (\S+)", line):
            lines = found.setdefault(match[1], [])
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            lines.append(match[1])
    return found


def _of_a_count(usual: list[str], at: int, register: str) -> bool:
    """Whether the register that is set at `at` becomes a barrier's count, and nothing else."""
    uses = (line for line in usual[at + 1 :] if re.search(rf"\b{register}\b", line))
    return next(uses, "") == f"UIADD3 {register}, -{register}, 0x100000, URZ"


def compare(usual: list[str], lanes: list[str]) -> dict:
    """How the two differ: arrivals and counts as they should, and what else, with its places."""
    found = {"instructions": len(usual), "arrivals": 0, "counts": 0, "else": []}
    if len(usual) != len(lanes):
        found["else"].append(f"{len(usual)} and {len(lanes)} instructions")
    for at, (one, other) in enumerate(zip(usual, lanes, strict=False)):
        if one == other:
            continue
        arrive, before, after = ARRIVE.fullmatch(one), COUNT.fullmatch(one), COUNT.fullmatch(other)
        if arrive and other == arrive[1]:
            found["arrivals"] += 1
        elif (
            before
            and after
            and before[1] == after[1]
            and int(after[2], 16) == 32 * int(before[2], 16)
            and _of_a_count(usual, at, before[1])
        ):
            found["counts"] += 1
        else:
            found["else"].append(f"{at}: {one} | {other}")
    return found


def sound(kernel: str, found: dict) -> bool:
    """Whether a kernel differs as it may: Hopper's attention in its arrivals, others not at all."""
    hopper = every_lane_arrives.NAME.fullmatch(kernel) is not None
    wanted = found["arrivals"] >= 2 and found["counts"] == 1
    return not found["else"] and (wanted if hopper else found["arrivals"] + found["counts"] == 0)


def compared(command: list[str], cuobjdump: str) -> dict[str, dict]:
    """What `compare` found, by kernel."""
    kernels: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted((CUDA / "src").glob("*.cu")):
            cubin = compiled(command, source, Path(scratch))
            changed = cubin.with_suffix(".lanes.cubin")
            changed.write_bytes(every_lane_arrives.change(cubin.read_bytes())[0])
            usual, lanes = (instructions(cuobjdump, file) for file in (cubin, changed))
            if usual.keys() != lanes.keys():
                raise ValueError(f"{source.name}: both must hold the same kernels")
            kernels |= {name: compare(usual[name], lanes[name]) for name in usual}
    return kernels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "nvcc")
    parser.add_argument("--nvrtc", default="", help="libnvrtc, to compile with instead")
    parser.add_argument("--include", action="append", default=[], help="headers for --nvrtc")
    parser.add_argument("--cuobjdump", default=shutil.which("cuobjdump") or "cuobjdump")
    parser.add_argument("--out", type=Path, help="JSON with the counts of every kernel")
    options = parser.parse_args()
    command = compiler(options.nvcc, options.nvrtc, options.include)
    kernels = compared(command, options.cuobjdump)
    hopper = [name for name in kernels if every_lane_arrives.NAME.fullmatch(name)]
    for name in hopper:
        one = kernels[name]
        print(
            f"{name}: {one['instructions']} instructions, {one['arrivals']} arrivals without their"
            f" predicate, {one['counts']} count, {len(one['else'])} other differences"
        )
    wrong = [name for name, one in kernels.items() if not sound(name, one)]
    for name in wrong:
        print(f"{name} DIFFERS: {kernels[name]}")
    rest = len(kernels) - len(hopper)
    print(f"{len(hopper)} Hopper kernels, {rest} others that do not differ; {len(wrong)} wrong")
    if options.out:
        options.out.write_text(json.dumps(kernels, indent=1) + "\n")
    return 1 if wrong or len(hopper) != 8 else 0


if __name__ == "__main__":
    sys.exit(main())
