"""The remainder: what whole heads leave uneven is evened out by rows of single heads.

A rank that has more to do than the others hands the last query tiles of a head to one that has
less. Both get the head's q, k and v; each computes its rows and one block of every other row. The
head stays its first rank's own: that one samples it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .dealing import Dealing, Part

# No part is made that evens two ranks out by less than this share of the mean.
LEAST_GAIN = 0.01
# What sending one more head's q, k, v and output costs: as much time as attention of each of its
# queries to so many keys. An estimate: 300 GB/s, and the INT8 kernel of an H100. No two GPUs were
# measured.
SENT_KEYS = 6144
# Ranks that are handed parts in one layer at most, as a multiple of the ranks.
_MOST_PARTS = 1


def with_parts(
    dealing: Dealing,
    loads: Sequence[int],
    fixed: int,
    orders: Sequence[str],
    rows: int,
    block_q: int,
    cost: float = 0.0,
) -> Dealing:
    """The dealing with parts, as many as pay. loads: of all heads. fixed: what every head costs in
    any case, rows: query tiles of the grid; both as of loads.head_loads. orders: of all heads.
    cost: of sending one more head to a rank, in the unit of the loads.
    """
    sums, parts, ends = list(dealing.loads), [], {}
    step, guests = LEAST_GAIN * sum(sums) / dealing.ranks, [0] * dealing.ranks
    # After so many parts: what the slowest rank takes, and who has the most of others' heads.
    best, kept, loads_then = float(max(sums)), 0, tuple(sums)
    for _ in range(_MOST_PARTS * dealing.ranks):
        heavy = max(range(len(sums)), key=lambda one: (sums[one], -one))
        light = min(range(len(sums)), key=lambda one: (sums[one], one))
        found = []
        for head in dealing.heads[heavy]:
            end = ends.get(head, rows)
            moved = _moved(sums, heavy, light, loads[head] - fixed, fixed, rows, end)
            found += [(*moved, head)] if moved is not None else []
        most, count, after, head = min(found, default=(sums[heavy], 0, None, 0))
        if most > sums[heavy] - step:
            break
        end = ends.get(head, rows)
        ends[head] = end - count
        parts.append(Part(head, light, end - count, end, orders[head], block_q))
        sums[heavy], sums[light] = after
        guests[light] += 1
        if max(sums) + cost * max(guests) < best:
            best, kept, loads_then = max(sums) + cost * max(guests), len(parts), tuple(sums)
    return replace(dealing, loads=loads_then, parts=tuple(parts[:kept])) if kept else dealing


def _moved(sums, heavy: int, light: int, blocks: int, fixed: int, rows: int, end: int):
    """(the heavier sum then, rows that are moved, both sums) that even out two ranks by a head with
    so many blocks; None where nothing is gained."""
    each = blocks / rows
    # heavy - n (each - 1) = light + fixed + n each + rows - n
    room = sums[heavy] - sums[light] - fixed - rows
    count = int(room / (2 * each - 2)) if each > 1 else 0
    count = min(count, end - 1)
    if count < 1:
        return None
    own = sums[heavy] - round(count * (each - 1))
    other = sums[light] + fixed + round(count * each) + rows - count
    return max(own, other), count, (own, other)
