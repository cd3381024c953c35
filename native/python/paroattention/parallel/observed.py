"""What an observer and block sums have seen of some heads, as ranks tell it to each other.

Offset kernels are sums of whole multiples of 2^-32 (native/core), so they come to the same bits
whichever rank has summed them.
"""

from __future__ import annotations

import numpy as np

from .. import _core
from ..layout import TokenLayout
from ..learn.observer import Observer
from ..learn.seen_blocks import SeenBlocks
from ..steps import Mark


def told_observed(observer: Observer, *, again: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """(told, arrays) of the heads that this process has watched since it last told of them. Of
    devices it knows what was sent. again: the same heads are told once more the next time."""
    layers, arrays = [], {}
    for number, (layer, watched) in enumerate(observer.layers.items()):
        known, groups = watched.arrived(), {}
        here = [group for group in watched.touched if group in known]
        for group in here:
            touched = watched.touched[group]
            heads = sorted(touched)
            own = [known[group][head] for head in heads]
            groups[str(group)] = [heads, [one.rows for one in own]]
            arrays[f"sum/{number}/{group}"] = np.stack([one.sum for one in own])
            arrays[f"pairs/{number}/{group}"] = np.stack([one.pairs for one in own])
        if not again:
            watched.touched.clear()
        layout = watched.layout
        sides = [*layout.grid, layout.prefix, layout.suffix]
        size = [watched.heads, watched.head_dim]
        layers.append([layer, sides, *size, list(watched.first), groups])
    return {"layers": layers}, arrays


def merge_observed(observer: Observer, told: dict, arrays: dict[str, np.ndarray]) -> None:
    """Takes over what another rank has seen: its heads' sums take the place of those here."""
    for number, (layer, sides, heads, head_dim, first, groups) in enumerate(told["layers"]):
        f, h, w, prefix, suffix = sides
        call, conds, repeat, place = first
        mark = Mark(call, tuple(conds), repeat, place)
        layout = TokenLayout((f, h, w), prefix, suffix)
        watched = observer.watched(layer, layout, heads, head_dim, mark)
        for group, (numbers, rows) in groups.items():
            sums, pairs = (arrays[f"{name}/{number}/{group}"] for name in ("sum", "pairs"))
            for at, head in enumerate(numbers):
                fresh = _core.OffsetAccumulator(watched.bins, layout.grid)
                fresh.add_sums(sums[at], pairs[at], rows[at])
                watched.put(int(group), head, fresh)


def told_seen(seen: dict[str, SeenBlocks]) -> tuple[dict, dict[str, np.ndarray]]:
    """(heads by layer, arrays) of the block sums that hold anything."""
    told, arrays = {}, {}
    for layer, blocks in seen.items():
        heads = [int(head) for head in np.flatnonzero(blocks.counts.any(1))]
        if heads:
            told[layer] = heads
            arrays[f"sums/{layer}"], arrays[f"counts/{layer}"] = (
                blocks.sums[heads],
                blocks.counts[heads],
            )
    return told, arrays


def merge_seen(seen: dict[str, SeenBlocks], told: dict, arrays: dict[str, np.ndarray]) -> None:
    """Takes over another rank's sums, of layers that are known here too."""
    for layer, heads in told.items():
        blocks = seen.get(layer)
        if blocks is not None:
            blocks.put(heads, arrays[f"sums/{layer}"], arrays[f"counts/{layer}"])
