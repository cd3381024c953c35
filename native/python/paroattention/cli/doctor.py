"""`doctor`: what would run on this machine, and why not faster."""

from __future__ import annotations

import platform

import torch

from .. import _core
from ..kernels.capability import unsupported


def _gpu(index: int) -> str:
    reason = unsupported(torch.empty((1, 1, 1, 64), dtype=torch.bfloat16, device=f"cuda:{index}"))
    return f"{reason}; models on it run dense" if reason else "int8 and bf16 kernels"


def _lines() -> list[str]:
    lines = [
        f"paroattention {_core.__version__}, torch {torch.__version__},"
        f" Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"CPU kernels: {_core.active_isa()} of {', '.join(_core.available_isas())},"
        f" {torch.get_num_threads()} threads",
    ]
    if _core.active_isa() == "scalar":
        lines.append("  slow: this processor has neither AVX2 nor AVX-512")
    elif _core.active_isa() == "avx2":
        lines.append("  int8 is about as fast as fp32: this processor has no AVX-512 VNNI")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            name = torch.cuda.get_device_name(index)
            major, minor = torch.cuda.get_device_capability(index)
            lines.append(f"GPU {index}: {name} (sm_{major}{minor}): {_gpu(index)}")
    else:
        lines.append("GPU: none that torch can use")
    return lines


def main(arguments: list[str]) -> int:
    print("\n".join(_lines()))
    return 0
