"""`bench offsets`: how much of exact maps' retained mass the masks from offset kernels keep.

Kernels come from sampled queries of one run on the model's own grid; their masks are laid over the
exact maps of four runs: that one, another prompt, and both prompts on another grid. Beside them:
what exact maps reach where they are their own (the most any static mask can keep of that very run),
what exact maps of the first prompt reach on the second one (what an exact calibration does), and
what a profile keeps that was made on that grid. Made-up heads of the paper's kinds follow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import torch

from .. import _core
from ..layout import TokenLayout
from ..learn.observer import Observer
from ..plan.profile_build import build_profile
from ..settings import ModelInfo, Settings
from . import made_up
from .bundled import Bundle
from .exact import ExactObserver
from .fidelity import CALIBRATION, HELD_OUT

BLOCK, DENSITIES = 64, (0.5, 0.3, 0.2)
LARGER = (12, 20, 27)
# Of the steps of a run, as PAROCalibrate and `bench heads` have it: a quarter of them is watched.
WATCHED = 4


class Watch:
    """Exact maps of a run, by layer, group and head, and an Observer's samples of it.

    Steps after the last one that is watched are not run.
    """

    def __init__(self, bundle: Bundle, prompt: str, seed: int, grid, steps: int, queries: int):
        self.exact, self.observer = ExactObserver(BLOCK, BLOCK), Observer(queries, 0)
        layout = TokenLayout(grid)
        every, current = max(1, steps // WATCHED), {}

        def attention(q, k, v, layer):
            if current["step"] % every == 0:
                name, group = f"double.{layer}.0", int(2 * current["step"] >= steps)
                for observer in (self.exact, self.observer):
                    scale = q.shape[-1] ** -0.5
                    observer.observe(name, q, k, layout, sm_scale=scale, group=group)
            return bundle.wan.sdpa(q, k, v, layer)

        def on_step(step, sigma, x):
            current["step"] = step
            if step > every * (WATCHED - 1):
                raise StopIteration

        frames, height, width = grid
        patch, channels = bundle.wan.PATCH, bundle.wan.LATENT_SHAPE[0]
        shape = (channels, frames, height * patch, width * patch)
        bundle.model.attention = attention
        noise = bundle.wan.make_noise(seed, shape=shape).to(bundle.device)
        with contextlib.suppress(StopIteration):
            bundle.wan.sample(bundle.model, noise, bundle.context([prompt]), steps, on_step=on_step)
        bundle.model.attention = bundle.wan.sdpa


def best_of(maps, density: float):
    """(order's place, mask) of exact maps by order: the one that keeps most."""
    masks = [_core.make_mask(one, density) for one in maps]
    kept = [_core.retained_mass(one, mask) for one, mask in zip(maps, masks, strict=True)]
    place = int(np.argmax(kept))
    return place, masks[place]


def kept(maps, order: int, mask) -> float:
    return _core.retained_mass(maps[order], mask)


def _profile_masks(profile, grid, density: float):
    """(order's place, mask) by layer, group and head."""
    found, threads = {}, torch.get_num_threads()
    for place, layer in enumerate(profile.layer_ids()):
        for group in range(len(profile.timestep_groups)):
            plan = _core.plan_layer(profile, place, group, grid, density=density, threads=threads)
            for head, own in enumerate(plan.heads):
                found[(layer, group, head)] = _core.ORDERS.index(own.order), own.mask
    return found


def bundled(bundle: Bundle, grids, steps: int, queries: int) -> tuple[list[dict], int]:
    """(rows, bytes of the profile); a row a run and density: means over heads and groups.

    grids: others than the model's own, on which the profile of the own one is judged too, beside
    one that was made there.
    """
    own = bundle.layout.grid
    runs = {}
    for grid in (own, *grids):
        for name, (prompt, seed) in (("calibration", CALIBRATION), ("held out", HELD_OUT[0])):
            runs[(name, grid)] = Watch(bundle, prompt, seed, grid, steps, queries)
            print(f"watched: {name}, {grid}", flush=True)
    groups = [(1.0, 0.5), (0.5, 0.0)]
    settings = Settings(dense_below=0.0)  # all heads sparse

    def made_on(grid):
        watched = runs[("calibration", grid)].observer
        return build_profile(watched, ModelInfo("wan2.1"), settings, groups, steps=steps)

    profile, rows = made_on(own), []
    here = {grid: profile if grid == own else made_on(grid) for grid in (own, *grids)}
    for (name, grid), run in runs.items():
        for density in DENSITIES:
            # An exact calibration is of the first prompt on the same grid.
            calibrated = runs[("calibration", grid)].exact
            profiles = profile, here[grid]
            rows.append(_row(name, grid, density, run.exact, calibrated, profiles))
    return rows, len(profile.dump())


def _row(name, grid, density, judged, before, profiles) -> dict:
    """profiles: of the model's own grid, and of this one."""
    masks, here = (_profile_masks(profile, grid, density) for profile in profiles)
    own, calibrated, ours, made_here = [], [], [], []
    for (layer, group), heads in judged.maps.items():
        for head, maps in enumerate(heads):
            own.append(kept(maps, *best_of(maps, density)))
            exact = before.maps[(layer, group)][head]
            calibrated.append(kept(maps, *best_of(exact, density)))
            ours.append(kept(maps, *masks[(layer, group, head)]))
            made_here.append(kept(maps, *here[(layer, group, head)]))
    row = {"run": name, "grid": list(grid), "density": density}
    mean = float(np.mean(made_here))
    return _shares(row, own, calibrated, ours) | {
        "profile_of_this_grid": round(mean, 4),
        "share_of_calibrated_of_this_grid": round(mean / float(np.mean(calibrated)), 4),
    }


def _shares(row, own, calibrated, ours) -> dict:
    means = [float(np.mean(values)) for values in (own, calibrated, ours)]
    row |= {
        "exact_of_this_run": round(means[0], 4),
        "exact_calibrated": round(means[1], 4),
        "profile": round(means[2], 4),
        "share_of_this_run": round(means[2] / means[0], 4),
        "share_of_calibrated": round(means[2] / means[1], 4),
    }
    return row


def _exact_maps(kind: str, grid, random) -> list:
    maps = [_core.empty_map(grid, order, BLOCK, BLOCK) for order in _core.ORDERS]
    size = int(np.prod(grid))
    for start in range(0, size, 256):
        queries = np.arange(start, min(start + 256, size), dtype=np.int32)
        values = made_up.rows(kind, grid, queries, random)
        for one in maps:
            _core.accumulate_rows(one, grid, queries, values)
    return maps


def synthetic(grid, queries: int) -> list[dict]:
    """A row a kind and density: kernels and exact maps of one draw of noise, judged on another."""
    rows, size = [], int(np.prod(grid))
    bins = _core.Bins.even(grid)
    for number, kind in enumerate(made_up.KINDS):
        random = np.random.default_rng(number)
        places = random.integers(0, size, WATCHED * queries).astype(np.int32)
        seen = _core.OffsetAccumulator(bins, grid)
        _core.add_rows([seen], places[None], made_up.rows(kind, grid, places, random)[None])
        head, _ = _core.build_head(bins, [seen.kernel()], grid, 0.3)
        kernel = _core.dequantise(bins, head.groups[0].code, head.groups[0].peak)
        ours = _core.importance(bins, kernel, grid, head.order, BLOCK, BLOCK)
        calibrated, judged = (_exact_maps(kind, grid, random) for _ in range(2))
        for density in DENSITIES:
            mask = _core.make_mask(ours, density)
            row = {"kind": kind, "grid": list(grid), "density": density, "order": head.order}
            own = kept(judged, *best_of(judged, density))
            exact = kept(judged, *best_of(calibrated, density))
            rows.append(
                _shares(row, own, exact, kept(judged, _core.ORDERS.index(head.order), mask))
            )
    return rows


def table(rows: list[dict]) -> str:
    head = "run or kind              density  exact: own  calibrated     profile"
    lines = [f"{head}   of own  of calibrated  made there"]
    names = ("exact_of_this_run", "exact_calibrated", "profile")
    for row in rows:
        place = row.get("kind") or f"{row['run']} {'x'.join(map(str, row['grid']))}"
        means = " ".join(f"{row[name]:11.4f}" for name in names)
        shares = f"{row['share_of_this_run']:8.2%} {row['share_of_calibrated']:14.2%}"
        there = row.get("share_of_calibrated_of_this_grid")
        shares += "" if there is None else f" {there:11.2%}"
        lines.append(f"{place:24} {row['density']:7} {means} {shares}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench offsets", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument(
        "--grid",
        type=int,
        nargs=3,
        action="append",
        metavar=("F", "H", "W"),
        help=f"another grid for the model; repeat it for several (default: {LARGER})",
    )
    parser.add_argument("--only", choices=("bundled", "synthetic"))
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    rows, size = [], None
    if options.only != "bundled":
        rows += synthetic(LARGER, options.queries)
        print(table(rows), flush=True)
    if options.only != "synthetic":
        bundle = Bundle(options.assets, options.device)
        grids = [tuple(grid) for grid in options.grid or [LARGER]]
        found, size = bundled(bundle, grids, options.steps, options.queries)
        print(f"{table(found)}\nprofile: {size} bytes")
        rows = found + rows
    if options.out:
        meta = {"date": time.strftime("%Y-%m-%d"), "version": _core.__version__}
        meta |= {"steps": options.steps, "queries": options.queries, "profile_bytes": size}
        lines = ",\n".join(json.dumps(row) for row in rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f'{json.dumps(meta, indent=1)[:-2]},\n "rows": [\n{lines}\n]}}\n')
    return 0
