"""What ranks tell each other comes to the same bits there, whoever has seen it."""

from __future__ import annotations

import numpy as np
import torch
from paroattention import Heads, Observer, TokenLayout
from paroattention.learn.seen_blocks import SeenBlocks
from paroattention.parallel.messages import packed, unpacked
from paroattention.parallel.observed import merge_observed, merge_seen, told_observed, told_seen
from problems import tensors

LAYOUT = TokenLayout((3, 6, 8), 4, 2)


def _watch(observer: Observer, heads: Heads | None, calls: int = 3) -> None:
    for call in range(calls):
        q, k, _ = tensors(5, LAYOUT.length, 64, seed=call)
        if heads is not None:
            q, k = (x[:, list(heads.numbers)] for x in (q, k))
        for layer in ("a", "b"):
            observer.observe(layer, q, k, LAYOUT, sm_scale=0.125, group=call % 2, heads=heads)


def _told(observer: Observer):
    """As it goes over the wire."""
    return unpacked(packed(*told_observed(observer, again=False)))


def test_two_observers_of_some_heads_are_one_of_all():
    one, first, second = (Observer(16, seed=3) for _ in range(3))
    _watch(one, None)
    _watch(first, Heads((0, 3), 5))
    _watch(second, Heads((1, 2, 4), 5))
    told = _told(first), _told(second)
    merge_observed(first, *told[1])
    merge_observed(second, *told[0])
    for merged in (first, second):
        assert list(merged.in_order()) == ["a", "b"]
        for layer, group in (("a", 0), ("b", 1)):
            assert np.array_equal(merged.kernels(layer, group), one.kernels(layer, group))
            rows = [head.rows for head in merged.layers[layer].accumulators(group)]
            assert rows == [head.rows for head in one.layers[layer].accumulators(group)]
    # What was told is told once, until there is more.
    assert all(not groups for *_, groups in _told(first)[0]["layers"])


def test_a_layer_that_was_not_watched_here_is_taken_over():
    first, second = Observer(16, seed=3), Observer(16, seed=3)
    _watch(first, Heads((0, 3), 5))
    merge_observed(second, *_told(first))
    assert set(second.layers) == {"a", "b"}
    assert [head.rows for head in second.layers["a"].accumulators(0)] == [32, 0, 0, 32, 0]


def test_sums_come_back_as_they_went():
    observer = Observer(16, seed=3)
    _watch(observer, None)
    own = observer.layers["a"].accumulators(0)[2]
    assert own.sum.any() and own.pairs.any()
    # Of whole multiples of 2^-32: nothing is lost on the way.
    assert np.array_equal(own.sum * 2**32, np.rint(own.sum * 2**32))


def test_block_sums_of_other_heads_are_taken_over():
    orders = ["FHW", "WHF", "HFW"]
    one, other = (SeenBlocks(LAYOUT.grid, orders, 64, 64) for _ in range(2))
    places, rows = torch.tensor([3, 70]), torch.rand(2, LAYOUT.grid_size)
    one.add_rows(1, places, rows)
    other.add_rows(2, places, rows)
    before = other.sums[2].copy()
    merge_seen({"a": other}, *unpacked(packed(*told_seen({"a": one}))))
    assert np.array_equal(other.sums[1], one.sums[1]) and other.counts[1].any()
    assert np.array_equal(other.sums[2], before) and not other.counts[0].any()
