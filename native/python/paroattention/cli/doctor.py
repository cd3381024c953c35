"""`doctor`: what would run on this machine, why not faster, and whether it computes rightly.

Its output is what a bug report needs. It names no folder of the user.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from .. import _core
from ..kernels import cuda, driver, self_test
from ..kernels.capability import unsupported
from ..limits import HEAD_DIMS


def _software() -> list[str]:
    missing = cuda.load()
    return [
        f"paroattention {_core.__version__}, torch {torch.__version__},"
        f" Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"GPU kernels: {missing or 'in this build'}",
    ]


def _processor() -> list[str]:
    lines = [
        f"CPU kernels: {_core.active_isa()} of {', '.join(_core.available_isas())},"
        f" {torch.get_num_threads()} threads"
    ]
    if _core.active_isa() == "scalar":
        lines.append("  slow: this processor has no AVX2 and no AVX-512")
    elif _core.active_isa() == "avx2":
        lines.append("  this processor has no AVX-512 VNNI: int8 is about as fast as fp32")
    return lines


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        return [f"GPU: none that torch can use ({built or 'torch is built without CUDA'})"]
    lines = [f"NVIDIA's driver: {driver.version()}; torch: CUDA {torch.version.cuda}"]
    for index in range(torch.cuda.device_count()):
        name, place = torch.cuda.get_device_name(index), f"cuda:{index}"
        major, minor = torch.cuda.get_device_capability(index)
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        shape = (1, 1, 1, HEAD_DIMS[0])
        reason = unsupported(torch.empty(shape, dtype=torch.bfloat16, device=place))
        does = f"{reason}; models on it run dense" if reason else "int8 and bf16 kernels"
        lines.append(f"GPU {index}: {name} (sm_{major}{minor}), {memory:.0f} GiB: {does}")
    return lines


def _tests() -> tuple[list[str], bool]:
    """Lines on every device's kernels, and whether all compute rightly."""
    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    lines, right = [], True
    for device in devices:
        results, seconds = self_test.timed(device)
        faults = [one for one in results if one.fault]
        right = right and not faults
        if results:
            good = f"{len(results) - len(faults)} of {len(results)} kernels compute rightly"
            lines.append(f"Self-test on {device}: {good} ({seconds:.1f} s)")
        lines += [f"  {one.name}: {one.fault}" for one in faults]
    return lines, right


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention doctor", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="leave out the self-test of every kernel"
    )
    parser.add_argument("--report", type=Path, help="also write the output to this file")
    options = parser.parse_args(arguments)
    lines, right = [*_software(), *_processor(), *_gpus()], True
    if not options.quick:
        tested, right = _tests()
        lines += tested
    text = "\n".join(lines)
    print(text)
    if options.report:
        options.report.write_text(f"{text}\n", encoding="utf-8")
    return 0 if right else 1
