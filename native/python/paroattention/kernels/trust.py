"""Which kernels are not to be used on a GPU, since the self-test found them wrong there.

Of this process: what a file remembers of earlier ones is read by tested_once.py.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from ..limits import HEAD_DIMS


@dataclass(frozen=True)
class Kernel:
    """One kernel of attention. path: hopper, portable, or auto on a CPU; tile: the side of its
    square blocks."""

    path: str
    precision: str
    head_dim: int
    tile: int

    @property
    def name(self) -> str:
        tile = f"{self.tile}x{self.tile}"
        path = "CPU" if self.path == "auto" else self.path
        return f"{path} {self.precision}, head_dim {self.head_dim}, blocks of {tile}"


_lock = threading.Lock()
# By the GPU's index: what is wrong with each.
_retired: dict[int, dict[Kernel, str]] = {}


def paths(device: torch.device) -> list[tuple[str, str]]:
    """(path, precision) of the kernels that calls on a device may take, the faster ones first."""
    if device.type != "cuda":
        return [("auto", "int8"), ("auto", "bf16")]
    found = [("portable", "int8"), ("portable", "bf16")]
    if torch.cuda.get_device_capability(device) == (9, 0):
        found.insert(0, ("hopper", "int8"))
    return found


def retire(device: torch.device, kernel: Kernel, fault: str) -> None:
    """Keeps calls with path="auto" off a kernel from now on."""
    with _lock:
        _retired.setdefault(_index(device), {})[kernel] = fault


def retired(device: torch.device) -> dict[Kernel, str]:
    """The kernels that are not used on a GPU, with what is wrong with each."""
    return dict(_retired.get(_index(device), {})) if device.type == "cuda" and _retired else {}


def forget() -> None:
    """Trusts every kernel again."""
    with _lock:
        _retired.clear()


def path(device: torch.device, precision: str, head_dim: int, tile: tuple[int, int]) -> str | None:
    """What "auto" means for a call on a GPU: "auto" where all kernels for it are trusted, else the
    path of the one that is, None where none is. tile: (block_q, block_kv)."""
    wrong = retired(device)
    if not wrong or tile[0] != tile[1]:
        return "auto"
    precision = "int8" if precision == "int8" else "bf16"
    named = [path for path, of in paths(device) if of == precision]
    left = [path for path in named if Kernel(path, precision, head_dim, tile[0]) not in wrong]
    if len(left) == len(named):
        return "auto"
    return left[0] if left else None


def every_head_dim(device: torch.device, precision: str, tile: int) -> bool:
    """Whether a GPU has a trusted kernel for each head_dim in square blocks of a side."""
    return all(path(device, precision, head_dim, (tile, tile)) for head_dim in HEAD_DIMS)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
