"""The remainder: rows of single heads even out what whole heads leave uneven."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from paroattention import Heads, TokenLayout
from paroattention.parallel.dealing import deal
from paroattention.parallel.loads import fixed_load, head_loads
from paroattention.parallel.parts import with_parts
from paroattention.parallel.slices import Slices, slice_of
from paroattention.parallel.ulysses import _tokens_of
from problems import random_plan

WAN = TokenLayout((21, 45, 80))
ORDERS = ("HWF", "FHW", "WFH", "WHF")


def cut(densities, ranks: int, layout=WAN, tile: int = 128):
    """(dealing without parts, with parts) of heads of these densities."""
    loads = head_loads(densities, layout, tile, tile)
    dealt = deal(loads, ranks)
    rows = -(-layout.grid_size // tile)
    orders = [ORDERS[head % 4] for head in range(len(loads))]
    return dealt, with_parts(dealt, loads, fixed_load(layout, tile, tile), orders, rows, tile)


@pytest.mark.parametrize(
    ("densities", "ranks"),
    [
        ([1.0] * 5 + [0.2] * 35, 8),
        ([1.0] + [0.053] * 39, 8),
        ([0.3] * 12, 8),
        ([1.0, 1.0] + [0.12] * 10, 4),
        ([0.3] * 3, 2),
    ],
)
def test_ranks_come_near_the_mean(densities, ranks):
    whole, parts = cut(densities, ranks)
    assert parts.imbalance < min(0.05, whole.imbalance)
    # What is computed twice or beside it costs little.
    assert sum(parts.loads) < 1.08 * sum(whole.loads)
    assert parts.heads == whole.heads and whole.parts == ()


def test_every_row_of_a_head_is_one_ranks():
    _, parts = cut([1.0] + [0.053] * 39, 8)
    rows = -(-WAN.grid_size // 128)
    assert len({part.head for part in parts.parts}) < len(parts.parts), "one head in three parts"
    for head in {part.head for part in parts.parts}:
        own = [part for part in parts.parts if part.head == head]
        (owner,) = (rank for rank, heads in enumerate(parts.heads) if head in heads)
        here = parts.of(owner)
        kept = here.rows[here.numbers.index(head)]
        spans = sorted([kept, *((part.first, part.end) for part in own)])
        assert spans[0][0] == 0 and spans[-1][1] == rows
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
        assert owner not in {part.rank for part in own}
    for rank in range(8):
        here = parts.of(rank)
        assert here.own.numbers == parts.heads[rank] and here.own.rows == ()
        assert len(here.numbers) == parts.counts[rank]
    assert [parts.permutation[place] for place in parts.inverse] == list(range(40))


def test_a_part_must_gain_what_it_costs():
    loads = head_loads([1.0] * 5 + [0.2] * 35, WAN, 128, 128)
    whole, fixed = deal(loads, 8), fixed_load(WAN, 128, 128)
    orders = ["HWF"] * 40
    free = with_parts(whole, loads, fixed, orders, 591, 128)
    most = max(sum(part.rank == rank for part in free.parts) for rank in range(8))
    gain = (max(whole.loads) - max(free.loads)) / most
    assert gain > 0
    paid = with_parts(whole, loads, fixed, orders, 591, 128, 0.9 * gain)
    assert max(paid.loads) <= max(whole.loads) - 0.9 * gain
    assert with_parts(whole, loads, fixed, orders, 591, 128, max(whole.loads)) is whole


def test_what_is_even_stays_whole():
    whole, parts = cut([0.3] * 40, 8)
    assert parts is whole


def test_a_part_computes_its_rows_and_one_block_of_each_other():
    layout = TokenLayout((6, 11, 13), 9, 5)
    plan = random_plan(layout, 3, 0.4)
    rows = plan.heads[0].mask.rows
    heads = Heads((1, 0), 3, ((0, 4), (4, rows)), guests=1)
    part = slice_of(plan, heads)
    for head, number, span in zip(part.heads, heads.numbers, heads.rows, strict=True):
        mask, every = head.mask.numpy(), plan.heads[number].mask.numpy()
        inside = np.zeros(rows, bool)
        inside[slice(*span)] = True
        assert np.array_equal(mask[inside], every[inside])
        assert (mask[~inside].sum(1) == 1).all() and (every >= mask)[every.any(1)].all()
        assert head.order == plan.heads[number].order
    slices = Slices()
    assert slices.of(plan, heads) is slices.of(plan, heads)
    assert slices.of(plan, Heads.all_of(3)) is plan


def test_tokens_of_a_part_are_those_of_its_tiles():
    layout = TokenLayout((6, 11, 13), 9, 5)
    _, parts = cut([0.3] * 3, 2, layout, 64)
    (part,) = parts.parts
    cpu = torch.device("cpu")
    tokens = torch.cat([_tokens_of(part, layout, at, 436, cpu) + at for at in (0, 436)])
    assert len(tokens) == layout.grid_size - 64 * part.first and part.end == 14
    assert int(tokens.min()) >= 9 and int(tokens.max()) < 9 + layout.grid_size
