"""Whether each kernel that a device may be given computes the right numbers there.

A small problem for every path, precision, head_dim and tile, against float64. What a driver, a
compiler or a faulty card does to a kernel shows here, before a sampling run.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from .. import _core
from ..limits import HEAD_DIMS, TILES
from . import reference
from .attention import attention
from .capability import unsupported
from .trust import Kernel, paths

# Relative error to float64 of a call with logits of deviation 1, about twice what is measured on an
# H200 and on CPUs (INT8 .015, bf16 .002): a wrong instruction is off by much more.
LIMITS = {"int8": 0.03, "bf16": 0.006}
# Ragged blocks on the grid in both tiles, text before and behind it.
_GRID, _PREFIX, _SUFFIX, _HEADS = (3, 9, 13), 7, 20, 2
NO_MEMORY = "it could not be tested: the GPU has no memory left"
DENSE, SPARSE, TAIL = "dense", "sparse", "sparse with the tail"


@dataclass(frozen=True)
class Result(Kernel):
    """One kernel's check. error: relative, or None where it could not run; fault: why it is not to
    be trusted, "" where it is."""

    error: float | None
    fault: str


def kernels(device: torch.device) -> list[Kernel]:
    """Every kernel that calls on a device may take; empty where it has none."""
    tried = torch.empty((1, 1, 1, HEAD_DIMS[0]), dtype=torch.bfloat16, device=device)
    if unsupported(tried):
        return []
    kinds = itertools.product(paths(device), HEAD_DIMS, TILES)
    return [Kernel(*path, head_dim, tile) for path, head_dim, tile in kinds]


def run(device: torch.device | str) -> list[Result]:
    """The check of every kernel for this device; empty where it has none. Never raises."""
    device = torch.device(device)
    return [check(device, kernel) for kernel in kernels(device)]


def timed(device: torch.device | str) -> tuple[list[Result], float]:
    """The checks, and the seconds that they took."""
    started = time.perf_counter()
    return run(device), time.perf_counter() - started


def first_line(error: BaseException) -> str:
    """Of its text, cut short; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def check(device: torch.device, kernel: Kernel) -> Result:
    """One kernel's dense, sparse and tail attention against float64. Never raises."""
    found = (kernel.path, kernel.precision, kernel.head_dim, kernel.tile)
    try:
        errors = {kind: _error(device, *found, kind) for kind in (DENSE, SPARSE, TAIL)}
    except torch.OutOfMemoryError:
        return Result(*found, None, NO_MEMORY)
    except Exception as error:
        return Result(*found, None, f"it failed: {first_line(error)}")
    # NaN is above every other error.
    kind = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    limit, fault = LIMITS[kernel.precision], ""
    if not errors[kind] <= limit:
        fault = f"{kind} attention is off by {errors[kind]:.3f}, at most {limit} is expected"
    return Result(*found, errors[kind], fault)


def _error(device, path, precision, head_dim, tile, kind) -> float:
    draws = torch.Generator().manual_seed(head_dim + tile)
    plan = _plan(tile, 1.0 if kind == DENSE else 0.4)
    shape = (1, _HEADS, plan.length, head_dim)
    q, k, v = (torch.randn(shape, generator=draws).bfloat16() for _ in range(3))
    tail = kind == TAIL
    on_device = (x.to(device) for x in (q, k, v))
    out = attention(*on_device, plan, precision=precision, tail=tail, path=path).cpu()
    if kind == DENSE:
        wanted = reference.dense(q, k, v)
    else:
        wanted = reference.sparse(q, k, v, plan, tail=tail)
    error = reference.relative_error(out, wanted)
    return error if torch.isfinite(out).all() else float("nan")


def _plan(tile: int, density: float) -> _core.Plan:
    """Two heads in other orders; every row has a block."""
    draws = np.random.default_rng(tile)
    blocks = -(-_GRID[0] * _GRID[1] * _GRID[2] // tile)
    heads = []
    for order in ("WHF", "HFW"):
        mask = draws.random((blocks, blocks)) < density
        mask[np.arange(blocks), draws.integers(blocks, size=blocks)] = True
        heads.append(_core.HeadPlan(order, _core.BlockMask(mask)))
    sizes = {"prefix": _PREFIX, "suffix": _SUFFIX, "block_q": tile, "block_kv": tile}
    return _core.Plan(_GRID, heads=heads, **sizes)
