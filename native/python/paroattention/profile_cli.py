"""`profile show|validate|merge`: profiles on the command line."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from . import _core
from .profile_build import merge_profiles


def show(path: Path) -> str:
    """Text: the model, what it was calibrated on, orders and retained mass by layer."""
    profile = _core.Profile.load(path)
    model, run = profile.model, profile.calibration
    lines = [
        f"{path.name}: {path.stat().st_size} bytes",
        f"model {model.family} {model.fingerprint[:12]}, patches {model.patches or 'none'}:"
        f" {model.layers} layers of {model.heads} heads of {model.head_dim}",
        f"calibrated {run.date} by version {run.version}: {run.prompts} prompt(s),"
        f" {run.steps} steps, {run.queries} queries, sampler {run.sampler or 'unknown'},"
        f" grids {run.grids}",
        f"timestep groups (sigma): {profile.timestep_groups}",
    ]
    orders = Counter(head.order for layer in profile.layers for head in layer.heads)
    lines.append("orders: " + ", ".join(f"{name} {count}" for name, count in orders.most_common()))
    for layer in profile.layers:
        mass = np.mean([group.mass for head in layer.heads for group in head.groups], axis=0)
        kept = ", ".join(
            f"{value:.1%} at {density}"
            for density, value in zip(_core.MASS_DENSITIES, mass, strict=True)
        )
        names = " ".join(head.order for head in layer.heads)
        lines.append(f"  {layer.id:16} {names}: retained mass {kept}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="paroattention profile", description=__doc__)
    tools = parser.add_subparsers(dest="tool", required=True)
    for name in ("show", "validate"):
        tools.add_parser(name).add_argument("file", type=Path)
    merge = tools.add_parser("merge", help="the mean of two profiles of one model")
    for name in ("first", "second", "out"):
        merge.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    if options.tool == "show":
        print(show(options.file))
    elif options.tool == "validate":
        _core.Profile.load(options.file)
        print(f"{options.file}: valid {_core.PROFILE_SCHEMA}")
    else:
        first, second = (_core.Profile.load(p) for p in (options.first, options.second))
        merge_profiles(first, second, density=first.defaults.density).save(options.out)
        print(f"{options.out}: {options.out.stat().st_size} bytes")
    return 0
