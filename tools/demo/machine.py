"""The machine and the versions that a figure was taken on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from tools.setup.comfyui import version as comfyui_version


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def describe(comfyui: Path) -> dict:
    """For report.json: `host` and `versions`."""
    import paroattention

    return {
        "host": {
            "cpu": cpu_name(),
            "logical_cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "isa": paroattention.active_isa(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "paroattention": paroattention.__version__,
            "comfyui": comfyui_version(comfyui),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "scikit-image")},
        },
    }
