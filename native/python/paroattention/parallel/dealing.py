"""Which rank computes which heads: dealt out so that all ranks have as much to do.

Pure arithmetic over whole numbers. The same loads give the same dealing on every machine, so ranks
need not tell each other what they will compute.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from .. import _core
from ..heads import Heads
from ..settings import shown, whole

# Ranks that are looked for in a run at most; more is taken for a mistake.
MOST_RANKS = 1024


@dataclass(frozen=True)
class Part:
    """Query tiles first to end of a head's grid that `rank` computes in place of the head's own
    rank. order, block_q: which tokens these are."""

    head: int
    rank: int
    first: int
    end: int
    order: str
    block_q: int


@dataclass(frozen=True)
class Dealing:
    """The heads of one layer by rank. heads[rank]: that rank's own heads, rising. loads: their work
    by rank, in the unit of the loads that were dealt. parts: rows of heads that other ranks compute
    (parallel/parts.py)."""

    heads: tuple[tuple[int, ...], ...]
    loads: tuple[int, ...]
    parts: tuple[Part, ...] = ()

    @property
    def ranks(self) -> int:
        return len(self.heads)

    @property
    def total(self) -> int:
        """Heads of the layer."""
        return sum(map(len, self.heads))

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """Heads that each rank is sent: its own, and those that it computes a part of."""
        return tuple(len(self.of(rank).numbers) for rank in range(self.ranks))

    @functools.cached_property
    def permutation(self) -> tuple[int, ...]:
        """The order in which an all-to-all must send heads: all of rank 0, then of rank 1, and so
        on. Entry i is the head that comes i-th; one in parts comes several times."""
        return tuple(head for rank in range(self.ranks) for head in self.of(rank).numbers)

    @functools.cached_property
    def inverse(self) -> tuple[int, ...]:
        """Where each head of its own rank stands in `permutation`: back in the model's order."""
        places, first = [0] * self.total, 0
        for own, count in zip(self.heads, self.counts, strict=True):
            for place, head in enumerate(own):
                places[head] = first + place
            first += count
        return tuple(places)

    def of(self, rank: int) -> Heads:
        """What a rank computes."""
        return self._of[rank]

    @functools.cached_property
    def _of(self) -> tuple[Heads, ...]:
        found, total = [], self.total
        for rank, own in enumerate(self.heads):
            guests = [part for part in self.parts if part.rank == rank]
            # Parts are cut off a head's end, one after the other.
            ends = [min((part.first for part in self.parts if part.head == head), default=None)
                    for head in own]  # fmt: skip
            rows = [None if end is None else (0, end) for end in ends]
            rows += [(part.first, part.end) for part in guests]
            numbers = (*own, *(part.head for part in guests))
            given = tuple(rows) if any(one is not None for one in rows) else ()
            found.append(Heads(numbers, total, given, len(guests)))
        return tuple(found)

    @property
    def imbalance(self) -> float:
        """How much longer the slowest rank works than the mean: 0 where all are alike."""
        return max(self.loads) * self.ranks / sum(self.loads) - 1


def _check(count: int, ranks: int) -> None:
    if not whole(ranks, 1, MOST_RANKS):
        rule = f"must be a whole number from 1 to {MOST_RANKS}"
        raise _core.Error(f"ranks {rule} (got {shown(ranks)})")
    if count < ranks:
        raise _core.Error(
            f"ranks must be at most the model's {count} heads, since every rank computes whole"
            f" heads (got {ranks}): use fewer ranks for Ulysses"
        )


def _dealing(heads: Sequence[Sequence[int]], loads: Sequence[int]) -> Dealing:
    own = tuple(tuple(sorted(part)) for part in heads)
    return Dealing(own, tuple(sum(loads[head] for head in part) for part in own))


def even(heads: int, ranks: int, loads: Sequence[int] | None = None) -> Dealing:
    """As plain Ulysses deals: heads in a row, as many for each rank. Where they do not come out
    even the first ranks have one more. loads: by head, 1 each where none are given.

    Raises Error where there are more ranks than heads.
    """
    _check(heads, ranks)
    least, more = divmod(heads, ranks)
    edges = [rank * least + min(rank, more) for rank in range(ranks + 1)]
    own = [range(edges[rank], edges[rank + 1]) for rank in range(ranks)]
    return _dealing(own, loads or [1] * heads)


def deal(
    loads: Sequence[int], ranks: int, *, equal: bool = False, few_moves: bool = False
) -> Dealing:
    """Heads with these loads (whole numbers above 0, by head) for so many ranks.

    The heaviest head goes to the lightest rank, and so on; then one or two heads are moved, or
    exchanged for others, as long as that makes the heavier of two ranks lighter. equal: ranks'
    numbers of heads differ by one at most, for engines that exchange equal shares. few_moves: it
    begins with what `even` gives, so that most heads stay there; for engines that deal evenly and
    whose heads have to be sent on.
    Raises Error where there are more ranks than heads, or a load is not above 0.
    """
    bad = next((load for load in loads if not (isinstance(load, int) and load > 0)), None)
    if bad is not None:
        raise _core.Error(f"loads must be whole numbers above 0 (got {shown(bad)})")
    _check(len(loads), ranks)
    most = -(-len(loads) // ranks) if equal else len(loads)
    least = len(loads) // ranks if equal else 1
    plain = even(len(loads), ranks, loads)
    if few_moves:
        own, sums = [list(part) for part in plain.heads], list(plain.loads)
    else:
        own, sums = _greedy(loads, ranks, least, most)
    _move(own, sums, loads, least, most)
    found = _dealing(own, loads)
    # Nothing is moved where that gains nothing.
    return plain if max(plain.loads) <= max(found.loads) else found


def _greedy(loads: Sequence[int], ranks: int, least: int, most: int) -> tuple[list, list]:
    """(heads, loads) by rank: the heaviest head goes to the lightest rank, and so on."""
    own: list[list[int]] = [[] for _ in range(ranks)]
    sums, left = [0] * ranks, len(loads)
    for head in sorted(range(len(loads)), key=lambda one: (-loads[one], one)):
        # Heads that are left must do for the ranks that have less than they need.
        short = sum(max(0, least - len(part)) for part in own)
        open_ = [
            rank for rank in range(ranks) if len(own[rank]) < (most if left > short else least)
        ]
        rank = min(open_, key=lambda one: (sums[one], one))
        own[rank].append(head)
        sums[rank] += loads[head]
        left -= 1
    return own, sums


def _move(own, sums, loads, least: int, most: int) -> None:
    """Moves and exchanges heads in place. Each change makes the sorted sums smaller, so it ends."""
    while True:
        heavy = max(range(len(own)), key=lambda one: (sums[one], -one))
        found = min(_changes(own, sums, loads, heavy, least, most), default=None)
        if found is None or found[0] >= sums[heavy]:
            return
        _, light, goes, comes = found
        gain = sum(loads[head] for head in goes) - sum(loads[head] for head in comes)
        own[heavy] = [head for head in own[heavy] if head not in goes] + list(comes)
        own[light] = [head for head in own[light] if head not in comes] + list(goes)
        sums[heavy] -= gain
        sums[light] += gain


def _changes(own, sums, loads, heavy: int, least: int, most: int):
    """(the heavier sum of both ranks after it, the other rank, heads that go, heads that come) of
    every change with the heaviest rank."""
    from_heavy = _choices(own[heavy], loads)
    for light in range(len(own)):
        if light == heavy:
            continue
        from_light = _choices(own[light], loads)
        for (goes, more), (comes, less) in itertools.product(from_heavy, from_light):
            gain, moved = more - less, len(goes) - len(comes)
            fits = len(own[heavy]) - moved >= least and len(own[light]) + moved <= most
            # Or the other way round, where more come than go.
            fits = fits and len(own[light]) + moved >= least and len(own[heavy]) - moved <= most
            if gain > 0 and fits:
                yield max(sums[heavy] - gain, sums[light] + gain), light, goes, comes


def _choices(heads: list[int], loads) -> list[tuple[tuple[int, ...], int]]:
    """(heads, their load) of none, one or two of a rank's heads; of those with the same loads the
    first ones alone."""
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    rising = sorted(heads)
    for count in range(3):
        for some in itertools.combinations(rising, count):
            found.setdefault(tuple(sorted(loads[head] for head in some)), some)
    return [(some, sum(key)) for key, some in found.items()]
