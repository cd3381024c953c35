"""`bench memory`: what a run keeps on the host beside the model, at the size of a long video.

A session of made-up heads that all look at the same q, k and v; the attention itself is left out.
The profile is made up too, as in `bench plan`. Every second step is sampled, and masks are renewed
once. Needs Linux, which says how much memory a process had at most.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from .. import _core
from ..layout import TokenLayout
from ..limits import TILES
from ..run.session import Session
from ..settings import ModelInfo, Settings
from .plan import kernels, made_up_profile

HEAD_DIM, STEPS = 128, 7


def _status(field: str) -> int:
    """Bytes, of a line of this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status must have a line {field}")


def _profile(grid, layers: int, heads: int):
    bins = _core.Bins.even(grid)
    every = [[kernel] for kernel in kernels(bins, grid, heads, 0)]
    profile = made_up_profile(
        bins, grid, _core.build_heads(bins, every, grid, 0.3) * layers, layers, heads
    )
    profile.model.head_dim = HEAD_DIM
    return profile


def _watched(session: Session, layout: TokenLayout, layers: int, heads: int) -> dict:
    """Runs the session and returns the most that it held of each kind."""
    draws = torch.Generator().manual_seed(0)
    shape = 1, 1, layout.length, HEAD_DIM
    q, k, v = (torch.randn(shape, generator=draws).expand(-1, heads, -1, -1) for _ in range(3))
    kept, held = {"seen": 0, "plans": 0}, 0
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for sigma in session.steps.sigmas[:-1]:
        forward = session.begin_forward(sigma)
        for layer in range(layers):
            session.attention(forward, f"double.{layer}.0", q, k, v, layout, lambda: v)
            held = max(held, _status("VmRSS") - before)
        planner = session.planner
        seen = sum(one.sums.nbytes + one.counts.nbytes for one in planner.seen.values())
        plans = sum(map(_bytes, planner.plans().values()))
        kept = {"seen": max(kept["seen"], seen), "plans": max(kept["plans"], plans)}
    # What stays from call to call, and the most with what a call takes while it is sampled.
    kept["held"], kept["peak"] = held, _status("VmHWM") - before
    return {f"{name}_mb": round(value / 1e6) for name, value in kept.items()}


def _bytes(plan) -> int:
    """Of a plan's masks, and of its schedule with 8 bytes a tile."""
    return sum(head.mask.words.nbytes + 8 * head.mask.rows for head in plan.heads)


def measure(grid, layers: int, heads: int, tile: int, queries: int) -> dict:
    grid = tuple(grid)
    profile = _profile(grid, layers, heads)
    settings = Settings(watch="if needed", block_q=tile, block_kv=tile, queries=queries)
    sigmas = [1 - step / STEPS for step in range(STEPS + 1)]
    session = Session(
        settings,
        sigmas,
        model=ModelInfo("made-up"),
        find_profile=lambda grid: (profile, "made up"),
        kernel=lambda q, k, v, plan, **given: v,
    )
    started = time.perf_counter()
    found = _watched(session, TokenLayout(grid), layers, heads)
    pools = {one.pools for one in session.planner.seen.values()}
    told = session.finish()
    return {
        "pools": sorted(pools),
        **found,
        "renewals": told["renewals"],
        "reasons": told["reasons"],
        "paths": told["paths"],
        "run_s": round(time.perf_counter() - started, 1),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench memory", description=__doc__)
    parser.add_argument("--grid", type=int, nargs=3, default=(37, 24, 42), metavar=("F", "H", "W"))
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--heads", type=int, default=56)
    parser.add_argument("--tile", type=int, choices=TILES, default=TILES[-1])
    parser.add_argument("--queries", type=int, default=64, help="fewer are faster")
    options = parser.parse_args(arguments)
    size = {"grid": options.grid, "layers": options.layers, "heads": options.heads}
    size |= {"tile": options.tile, "queries": options.queries}
    print(json.dumps(size | measure(**size), indent=1))
    return 0
