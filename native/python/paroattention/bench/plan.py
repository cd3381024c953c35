"""`bench plan`: how long the plans of a whole model take on this CPU, and what they weigh.

A profile of made-up heads at the asked size (local along some axes, spread along others, noise on
top), as Wan 2.1 14B has at 720p and 81 frames unless said otherwise. Timed: the choice of orders
for all heads (what a run does that observes itself), and the masks and schedules of all layers at
either tile (what every run does). Seconds are of one core's work; the wall clock is stated too.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from .. import _core

BORDER = 0.5  # between the two timestep groups, of sigma


def kernels(bins, grid: tuple[int, int, int], heads: int, seed: int) -> list[np.ndarray]:
    """Offset kernels of made-up heads: exp(-offset / reach) along each axis, noise, a floor."""
    random = np.random.default_rng(seed)
    axes = [np.array(getattr(bins, axis), dtype=np.float32) for axis in "FHW"]
    found = []
    for _ in range(heads):
        reach = [side * 2.0 ** random.uniform(-5, 2) for side in grid]
        falls = [np.exp(-np.abs(edges) / r) for edges, r in zip(axes, reach, strict=True)]
        kernel = np.einsum("f,h,w->fhw", *falls) + 10.0 ** random.uniform(-5, -2)
        kernel *= np.exp2(random.normal(0, 0.4, kernel.shape))
        # A head's mass spreads over its grid: values are probabilities a pair.
        kernel /= kernel.mean() * np.prod(grid)
        found.append(np.minimum(kernel, 1).astype(np.float32).reshape(-1))
    return found


def _timed(work):
    wall, core = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - core


def made_up_profile(bins, grid, built, layers: int, heads: int):
    """A Profile of heads that build_heads has made, layer by layer."""
    profile = _core.Profile()
    model, calibration = _core.ProfileModel(), _core.ProfileCalibration()
    model.family, model.fingerprint = "made-up", "0" * 64
    model.layers, model.heads, model.head_dim = layers, heads, 128
    calibration.grids, calibration.prompts, calibration.queries = [grid], 1, 64
    profile.model, profile.calibration = model, calibration
    profile.bins, profile.timestep_groups = bins, [(1.0, 0.0)]
    profile.layers = [
        _core.ProfileLayer(f"double.{layer}.0", built[layer * heads : (layer + 1) * heads])
        for layer in range(layers)
    ]
    profile.validate()
    return profile


def measure(grid, layers: int, heads: int, density: float, tiles, threads: int) -> dict:
    """Seconds and bytes of the report; threads as in PlanBuilder."""
    bins = _core.Bins.even(grid)
    every = [[kernel] for kernel in kernels(bins, grid, layers * heads, 0)]
    built, wall, core = _timed(
        lambda: _core.build_heads(bins, every, grid, density, threads=threads)
    )
    found = {"orders": {"wall_s": round(wall, 2), "core_s": round(core, 2)}}
    profile = made_up_profile(bins, grid, built, layers, heads)
    # As a file of two groups: what a calibration saves.
    text = profile.dump()
    found["profile_bytes_of_one_group"] = len(text)
    for tile in tiles:

        def build(tile=tile):
            size = {"block_q": tile, "block_kv": tile}
            builder = _core.PlanBuilder(profile, 0, grid, density=density, threads=threads, **size)
            first = builder.get(0)
            for layer in range(1, layers):
                builder.get(layer)
            return first

        first, wall, core = _timed(build)
        words = _core.plan_words(first)
        found[f"plans {tile}x{tile}"] = {
            "wall_s": round(wall, 2),
            "core_s": round(core, 2),
            "device_bytes_of_two_layers": 2 * 4 * len(words),
            "density": round(first.density, 4),
        }
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench plan", description=__doc__)
    parser.add_argument("--grid", type=int, nargs=3, default=(21, 45, 80), metavar=("F", "H", "W"))
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--density", type=float, default=0.3)
    parser.add_argument("--tile", type=int, action="append", help="default 64 and 128")
    parser.add_argument("--threads", type=int, default=0, help="0: all of this machine's cores")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    tiles, grid = options.tile or [64, 128], tuple(options.grid)
    found = measure(grid, options.layers, options.heads, options.density, tiles, options.threads)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "version": _core.__version__,
        "cores": os.cpu_count(),
        "threads": options.threads or os.cpu_count(),
        "grid": list(grid),
        "layers": options.layers,
        "heads": options.heads,
        "density": options.density,
        **found,
    }
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0
