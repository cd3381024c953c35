"""`bench parallel --simulate`: how evenly a real profile's heads are dealt out to 2, 4 and 8 ranks.

Times come from a fit to attention calls measured on one GPU, not from several GPUs: a head costs
what it costs in any case, and so much for each block. The profile's heads are repeated until a
layer has as many as a large model's; its density is shared out as a run does. The all-to-all is
left out.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import _core
from ..layout import TokenLayout
from ..parallel.dealing import Dealing, deal, even
from ..parallel.loads import fixed_load, head_loads
from ..parallel.parts import SENT_KEYS, with_parts
from ..plan.head_densities import afforded, free_density
from ..plan.profile_copy import copy_head, with_densities, with_layers
from .bundled import Bundle
from .fidelity import CALIBRATION
from .policies import Calibration

TILE = 128
# parts: of whatever gains something; parts that pay: where sending is worth it too.
HOW = ("even", "dealt, equal numbers", "dealt", "parts that pay", "parts")
RANKS = (2, 4, 8)
DENSITIES = (0.5, 0.3, 0.2, 0.1)
# name: (heads, layers, grid, prefix)
MODELS = {
    "wan14b-720p": (40, 40, (21, 45, 80), 0),
    "minimax-h3": (56, 50, (27, 42, 70), 187),
}
# Of the measured calls.
SHAPE, PATH = "wan14b-720p", "hopper"


@dataclass(frozen=True)
class HeadTime:
    """Milliseconds of a head: fixed + each * density, at so many tokens. off: the fit's largest
    relative residual."""

    fixed: float
    each: float
    tokens: int
    off: float

    def of(self, density: float, tokens: int) -> float:
        share = tokens / self.tokens
        return self.fixed * share + self.each * density * share**2


def fitted(results: Path) -> HeadTime:
    """From rows of `bench attention` on a GPU, tail on. Raises Error where they are missing."""
    content = json.loads(results.read_text(encoding="utf-8"))
    rows = [
        row
        for row in content["rows"]
        if (row["shape"], row["name"], row["path"]) == (SHAPE, "paro", PATH)
        and row.get("tile") == f"{TILE}x{TILE}"
        and (row["tail"] or row["density"] == 1)
    ]
    if len(rows) < 3:
        raise _core.Error(f"--times must hold three rows of {SHAPE}, {PATH} (got {len(rows)})")
    # As bench/gpu.py has the shape: ten heads a call.
    heads, tokens = 10, 21 * 45 * 80
    densities = np.array([row["density_total"] for row in rows])
    times = np.array([row["ms"] / heads for row in rows])
    each, fixed = np.polyfit(densities, times, 1)
    off = np.abs((fixed + each * densities) / times - 1).max()
    return HeadTime(float(fixed), float(each), tokens, float(off))


def tiled(profile: _core.Profile, heads: int, layers: int, shuffled: bool) -> _core.Profile:
    """The profile's heads, repeated to a model of this size: in their order, or mixed."""
    every = [head for layer in profile.layers for head in layer.heads]
    places = [number % len(every) for number in range(heads * layers)]
    if shuffled:
        random.Random(0).shuffle(places)  # noqa: S311 an order that is the same each time
    made = []
    for layer in range(layers):
        own = [copy_head(every[at]) for at in places[layer * heads : (layer + 1) * heads]]
        made.append(_core.ProfileLayer(f"double.{layer}.0", own))
    return with_layers(profile, made)


def densities_of(profile: _core.Profile, asked: float) -> list[list[float]]:
    """By layer and head, as a run at this density shares it out."""
    planned = with_densities(profile, afforded(profile, asked))
    free = free_density(planned, asked)
    return [
        [free if head.density is None else head.density for head in layer.heads]
        for layer in planned.layers
    ]


def _dealing(how: str, loads: list[int], ranks: int, layout: TokenLayout) -> Dealing:
    if how == "even":
        return even(len(loads), ranks, loads)
    dealt = deal(loads, ranks, equal=how == "dealt, equal numbers")
    if "parts" not in how:
        return dealt
    rows, fixed = -(-layout.grid_size // TILE), fixed_load(layout, TILE, TILE)
    gain = SENT_KEYS * rows / TILE if how == "parts that pay" else 0.0
    return with_parts(dealt, loads, fixed, ["FHW"] * len(loads), rows, TILE, gain)


def _seconds(
    dealing: Dealing, times: list[float], fixed: float, layout: TokenLayout
) -> list[float]:
    """By rank. fixed: milliseconds of a head that computes nothing; parts cost that once more, and
    one block of each row that is another rank's."""
    found = [sum(times[head] for head in own) for own in dealing.heads]
    rows = -(-layout.grid_size // TILE)
    # Of a dense head, by the number of its blocks.
    block = (max(times) - fixed) / rows**2
    for part in dealing.parts:
        (owner,) = (rank for rank, own in enumerate(dealing.heads) if part.head in own)
        count, work = part.end - part.first, times[part.head] - fixed
        found[owner] -= count / rows * work - count * block
        found[part.rank] += fixed + count / rows * work + (rows - count) * block
    return [1e-3 * one for one in found]


def least(times: list[float], ranks: int) -> float:
    """The slowest rank's time in the best dealing of whole heads that there is, for heads of two
    different times at most: every number of the slower ones that a rank may have is tried."""
    slow, fast = max(times), min(times)
    many = sum(one > fast for one in times)
    sums = {a * slow + b * fast for a in range(many + 1) for b in range(len(times) - many + 1)}
    limits = sorted(one for one in sums if one >= (1 - 1e-9) * sum(times) / ranks)
    return next(limit for limit in limits if _holds(slow, fast, many, len(times), ranks, limit))


def _holds(slow, fast, many: int, heads: int, ranks: int, limit: float) -> bool:
    """Whether ranks that have this time each can compute all heads."""
    own = [int((limit - a * slow) / fast + 1e-9) if a * slow <= limit else -1
           for a in range(many + 1)]  # fmt: skip
    # By slow heads so far, the most fast ones that the ranks so far can have beside them.
    most = [0] + [-1] * many
    for _ in range(ranks):
        most = [
            max((most[n - a] + own[a] for a in range(n + 1) if most[n - a] >= 0 <= own[a]),
                default=-1)
            for n in range(many + 1)
        ]  # fmt: skip
    return most[many] >= heads - many


def row(layers, layout: TokenLayout, ranks: int, time: HeadTime, how: str) -> dict:
    """One way of dealing: attention of all layers of one evaluation."""
    slowest = mean = worst = best = 0.0
    for own in layers:
        loads = head_loads(own, layout, TILE, TILE)
        dealt = _dealing(how, loads, ranks, layout)
        times = [time.of(density, layout.length) for density in own]
        found = _seconds(dealt, times, time.fixed * layout.length / time.tokens, layout)
        best += 1e-3 * least(times, ranks)
        # Every layer ends with an all-to-all: there all wait for the slowest.
        slowest += max(found)
        # An even share of the work, without what parts compute beside it.
        share = 1e-3 * sum(times) / ranks
        mean += share
        worst = max(worst, max(found) / share - 1)
    return {
        "ranks": ranks,
        "dealing": how,
        "attention_s": round(slowest, 4),
        "imbalance": round(slowest / mean - 1, 4),
        "worst_layer": round(worst, 4),
        # Of the best dealing of whole heads.
        "least": round(best / mean - 1, 4),
    }


def rows(profile: _core.Profile, time: HeadTime) -> list[dict]:
    found = []
    for name, (heads, count, grid, prefix) in MODELS.items():
        layout = TokenLayout(grid, prefix)
        for shuffled in (False, True):
            model = tiled(profile, heads, count, shuffled)
            for density in DENSITIES:
                layers = densities_of(model, density)
                dense = sum(one > 0.99 for own in layers for one in own)
                for ranks in RANKS:
                    for how in HOW:
                        about = {"model": name, "heads": heads, "density": density}
                        about |= {"order": "mixed" if shuffled else "in order"}
                        about["dense_heads"] = round(dense / (heads * count), 4)
                        found.append(about | row(layers, layout, ranks, time, how))
    return found


def calibrated(assets: Path) -> _core.Profile:
    """The profile of the bundled model, as `bench heads` makes it: four minutes on two cores."""
    bundle = Bundle(assets, "cpu")
    return Calibration(bundle, *CALIBRATION, 20, [], 5).profiles["profile"]


def show(found: list[dict]) -> None:
    about = f"{'model':12} {'order':9} {'density':>7} {'ranks':>5} {'dealing':21}"
    print(f"{about} imbalance  worst  least")
    for one in found:
        print(
            f"{one['model']:12} {one['order']:9} {one['density']:7} {one['ranks']:5}"
            f" {one['dealing']:21} {one['imbalance']:9.1%} {one['worst_layer']:6.1%}"
            f" {one['least']:6.1%}"
        )
