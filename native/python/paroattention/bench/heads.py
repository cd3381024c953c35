"""`bench heads`: what each head of the bundled model keeps of its attention, by policy.

One dense run of the calibration prompt, watched by 64 sampled queries a head and by exact maps;
then every policy's masks are laid over the exact maps. It tells apart what a fixed order, a kernel
over offsets and exact maps lose, head by head, without sampling a clip for each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from .. import _core
from .bundled import Bundle
from .fidelity import CALIBRATION
from .policies import Calibration, with_dense_heads

BLOCK = 64


def _plan(profile, layer: str, group: int, grid, density: float):
    sigma = profile.timestep_groups[group][0]
    place = profile.layer_ids().index(layer)
    threads = torch.get_num_threads()
    return _core.plan_layer(
        profile, place, profile.timestep_group(sigma), grid, density=density, threads=threads
    )


def rows(calibration: Calibration, densities: list[float]) -> list[dict]:
    """One row a layer, head, timestep group and density; retained masses measured on exact maps."""
    maps, grid = calibration.exact[BLOCK], calibration.bundle.layout.grid
    profiles = calibration.profiles
    out = []
    # All heads sparse: what a dense one would lose is why it is dense.
    for profile in profiles.values():
        with_dense_heads(profile, {})
    for layer, group in sorted(maps.maps):
        for density in densities:
            plans = {name: _plan(profiles[name], layer, group, grid, density) for name in profiles}
            plans["exact"] = maps.plan(layer, density, group=group)
            for head, exact in enumerate(maps.maps[(layer, group)]):
                kept = {
                    f"retained_{name}": _retained(plan.heads[head], exact)
                    for name, plan in plans.items()
                }
                out.append(
                    {
                        "layer": layer,
                        "head": head,
                        "group": group,
                        "density_asked": density,
                        "kept_dense": calibration.dense_heads[layer][head],
                        "order": plans["profile"].heads[head].order,
                        "order_exact": plans["exact"].heads[head].order,
                        **kept,
                    }
                )
    return out


def _retained(head, maps) -> float:
    return round(_core.retained_mass(maps[_core.ORDERS.index(head.order)], head.mask), 4)


def table(found: list[dict], density: float) -> str:
    names = ("fhw", "profile", "exact")
    lines = [f"density {density}", f"{'layer':12} head group order exact   fixed profile   exact"]
    for row in found:
        if row["density_asked"] != density:
            continue
        place = f"{row['layer']:12} {row['head']:4} {row['group']:5}"
        kept = " ".join(f"{row[f'retained_{name}']:7.3f}" for name in names)
        dense = "  kept dense" if row["kept_dense"] else ""
        lines.append(f"{place} {row['order']:>5} {row['order_exact']:>5} {kept}{dense}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention bench heads", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets/model"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--exact-every", type=int, default=5, help="calibrate exact maps on every n-th step"
    )
    parser.add_argument("--density", type=float, action="append", help="default .3 and .2")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    options = parser.parse_args(arguments)
    densities = options.density or [0.3, 0.2]
    bundle = Bundle(options.assets, options.device)
    calibration = Calibration(bundle, *CALIBRATION, options.steps, [BLOCK], options.exact_every)
    found = rows(calibration, densities)
    for density in densities:
        print(table(found, density))
    if options.out:
        meta = {"date": time.strftime("%Y-%m-%d"), "version": _core.__version__}
        meta |= {"steps": options.steps, "exact_every": options.exact_every}
        lines = ",\n".join(json.dumps(row) for row in found)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(f'{json.dumps(meta, indent=1)[:-2]},\n "heads": [\n{lines}\n]}}\n')
    return 0
