"""`profile show|merge|diff`: profiles on the command line."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from .. import _core
from ..console import shown
from ..plan.profile_build import merge_profiles


def show(path: Path) -> str:
    """Text: the model, what it was calibrated on, orders and retained mass by layer."""
    profile = _core.Profile.load(path)
    model, run = profile.model, profile.calibration
    lines = [
        f"{shown(path.name)}: valid {_core.PROFILE_SCHEMA}, {path.stat().st_size} bytes",
        f"model {model.family} {model.fingerprint[:12]}, patches {model.patches or 'none'}:"
        f" {model.layers} layers, {model.heads} heads a layer, head size {model.head_dim}",
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


def merge(files: list[Path], density: float | None) -> _core.Profile:
    """All profiles' mean, weighted by prompts. density: where orders are compared; None: the
    first one's default."""
    profiles = [_core.Profile.load(path) for path in files]
    merged = profiles[0]
    for other in profiles[1:]:
        merged = merge_profiles(merged, other, density=density or merged.defaults.density)
    return merged


def _changed(head) -> str:
    parts = [f"{head.order_a} -> {head.order_b}" if head.order_a != head.order_b else head.order_a]
    if head.density_a != head.density_b:
        parts.append(f"density {head.density_a:g} -> {head.density_b:g}")
    if head.locked_a != head.locked_b:
        parts.append("unlocked" if head.locked_a else "locked")
    return ", ".join(parts)


def show_diff(diff, every: bool = False) -> str:
    """Text: fields that differ, layers that only one holds, heads that changed (every: all), and
    what both lose under each other's plan."""
    lines = [f"{name}: {a} -> {b}" for name, a, b in diff.fields]
    lines += [f"layer {layer}: only in the first profile" for layer in diff.only_a]
    lines += [f"layer {layer}: only in the second profile" for layer in diff.only_b]
    heads = [head for head in diff.heads if every or head.changed]
    if heads:
        lines.append(
            f"{'layer':16} head group  first: own, other's plan  second: own, other's plan"
        )
    for head in heads:
        kept = f"{head.a_by_a:10.1%} {head.a_by_b:13.1%} {head.b_by_b:11.1%} {head.b_by_a:13.1%}"
        lines.append(f"{head.layer:16} {head.head:4} {head.group:5} {kept}   {_changed(head)}")
    if diff.heads:
        mean = diff.mean
        lines.append(
            f"{diff.changed} of {len(diff.heads)} heads changed (counted in each timestep group);"
            " mean retained mass:"
            f" first {mean.a_by_a:.2%}, under the second's plan {mean.a_by_b:.2%};"
            f" second {mean.b_by_b:.2%}, under the first's plan {mean.b_by_a:.2%}"
        )
    return "\n".join(lines)


def diff_json(diff) -> dict:
    """The same as numbers."""
    names = ("layer", "head", "group", "order_a", "order_b", "density_a", "density_b")
    names += ("locked_a", "locked_b", "a_by_a", "a_by_b", "b_by_b", "b_by_a")
    return {
        "fields": [{"name": name, "a": a, "b": b} for name, a, b in diff.fields],
        "only_a": diff.only_a,
        "only_b": diff.only_b,
        "heads": [{name: getattr(head, name) for name in names} for head in diff.heads],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paroattention profile", description=__doc__)
    tools = parser.add_subparsers(dest="tool", required=True)
    show = tools.add_parser("show", help="check a profile and print what it holds")
    show.add_argument("file", type=Path)
    merge = tools.add_parser("merge", help="write the mean of several profiles of one model")
    merge.add_argument(
        "files", type=Path, nargs="+", help="two or more profiles, then the file to write"
    )
    merge.add_argument(
        "--density",
        type=float,
        help="density at which orders are compared (default: that of the first profile)",
    )
    compare = tools.add_parser("diff", help="print which heads changed, and what that costs")
    for name in ("first", "second"):
        compare.add_argument(name, type=Path)
    compare.add_argument(
        "--tile",
        type=int,
        default=64,
        help="tokens in a block (default: 64); 128 is four times faster",
    )
    compare.add_argument("--all", action="store_true", help="also print heads that did not change")
    compare.add_argument("--json", action="store_true")
    return parser


def main(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tool == "show":
        print(show(options.file))
    elif options.tool == "merge":
        *files, out = options.files
        if len(files) < 2:
            parser.error(
                f"merge needs two or more profiles and the file to write (got {len(files) + 1})"
            )
        merge(files, options.density).save(out)
        print(f"{shown(out)}: {out.stat().st_size} bytes")
    else:
        first, second = (_core.Profile.load(p) for p in (options.first, options.second))
        diff = _core.diff_profiles(first, second, block=options.tile)
        print(json.dumps(diff_json(diff)) if options.json else show_diff(diff, options.all))
    return 0
