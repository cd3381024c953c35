"""Plans built in the background, from Python."""

import threading

import numpy as np
import pytest
import torch
from paroattention import Error, _core
from paroattention.renewal import blend
from paroattention.seen_blocks import SeenBlocks, kernel_map, plan_head
from problems import GRID, profile

TWO = ((1.0, 0.6), (0.6, 0.0))


def same(plan, other) -> bool:
    words = [_core.plan_words(p).tolist() for p in (plan, other)]
    return words[0] == words[1] and plan.density == other.density


@pytest.mark.parametrize("block", [64, 128])
def test_hands_out_what_plan_layer_makes(block):
    built = profile(groups=TWO)
    size = {"block_q": block, "block_kv": block}
    builder = _core.PlanBuilder(built, 1, GRID, prefix=3, suffix=5, density=0.4, threads=2, **size)
    for place, layer in enumerate(built.layer_ids()):
        expected = _core.plan_layer(
            built, place, 1, GRID, prefix=3, suffix=5, density=0.4, threads=1, **size
        )
        assert same(builder.get(layer), expected)
        assert same(builder.get(place), expected)
        assert builder.ready(layer)
        assert (builder.get(layer).prefix, builder.get(layer).suffix) == (3, 5)
    assert builder.progress == (4, 4)


def test_takes_layers_by_id_in_the_order_needed():
    built = profile()
    builder = _core.PlanBuilder(built, 0, GRID, layers=["double.1.0"])
    assert builder.get("double.1.0").head_count == 2
    assert builder.progress == (2, 2)
    with pytest.raises(Error, match="layer must be one that was asked for"):
        builder.get("double.0.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 2}, "group must be an index"),
        ({"grid": (0, 4, 4)}, "grid"),
        ({"density": 0.0}, "density must be above 0"),
        ({"block_q": 0}, "block"),
        ({"layers": ["double.7.0"]}, "layer must be one of the profile's layers"),
        ({"layers": [0, 0]}, "layers must not name a layer twice"),
    ],
)
def test_refuses_bad_requests(change, message):
    keywords = {"group": 0, "grid": GRID, **change}
    with pytest.raises(Error, match=message):
        _core.PlanBuilder(profile(), **keywords)


def test_cancelled_it_raises_instead_of_waiting():
    builder = _core.PlanBuilder(profile(), 0, GRID, threads=1)
    first = builder.get(0)
    builder.cancel()
    assert builder.ready(0) and builder.ready(1)
    assert same(builder.get(0), first)


def test_waiting_leaves_the_interpreter_to_others():
    """Only who gets the interpreter while get() waits can cancel it."""
    built = profile(heads=16)
    builder = _core.PlanBuilder(built, 0, (21, 45, 80), threads=1)
    outcome = []

    def wait():
        try:
            outcome.append(builder.get(1))
        except Error as error:
            outcome.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    builder.cancel()
    thread.join(60)
    assert outcome == ["layer must be built before the builder is cancelled (got 1)"]
    done, every = builder.progress
    assert done < every == 32


def _seen(built, block, seed=0):
    """SeenBlocks of the profile's first layer with some tiles sampled, others not."""
    orders = [head.order for head in built.layers[0].heads]
    seen, rng = SeenBlocks(GRID, orders, block, block), np.random.default_rng(seed)
    size = GRID[0] * GRID[1] * GRID[2]
    heads = list(range(len(orders)))
    places = torch.from_numpy(rng.integers(0, size, (len(orders), 5)))
    sums = torch.from_numpy(rng.random((len(orders), 5, seen.cols), dtype=np.float32))
    seen.add_many(heads, places, sums)
    return seen, heads, places, sums


@pytest.mark.parametrize("block", [64, 128])
def test_what_samples_saw_makes_the_masks_that_the_slow_way_makes(block):
    built = profile(groups=TWO)
    seen, *_ = _seen(built, block)
    size = {"block_q": block, "block_kv": block}
    plan = _core.plan_layer(built, 0, 1, GRID, density=0.4, threads=2, **size, **seen.given(4.0))
    bare = _core.plan_layer(built, 0, 1, GRID, density=0.4, **size)
    for place, (head, entry) in enumerate(zip(plan.heads, built.layers[0].heads, strict=True)):
        kernel = kernel_map(built.bins, entry, 1, GRID, block, block)
        wanted = plan_head(seen.importance(place, kernel, 4.0), entry.order, 0.4)
        assert (head.mask.numpy() == wanted.mask.numpy()).all() and head.order == entry.order
        assert head.retained == pytest.approx(wanted.retained, rel=1e-5)
    assert not same(plan, bare)


def test_many_heads_at_once_are_seen_as_one_by_one():
    built = profile()
    seen, heads, places, sums = _seen(built, 64, seed=3)
    other = SeenBlocks(GRID, seen.orders, 64, 64)
    for head in heads:
        other.add_sums(head, places[head], sums[head])
    np.testing.assert_allclose(seen.sums, other.sums, rtol=1e-6)
    np.testing.assert_array_equal(seen.counts, other.counts)
    # And by hand, place by place.
    by_hand = np.zeros_like(seen.sums)
    for head, order in enumerate(seen.orders):
        ordered = _core.permutation(GRID, order).tolist()
        for place, row in zip(places[head].tolist(), sums[head].numpy(), strict=True):
            by_hand[head, ordered.index(place) // 64] += row
    np.testing.assert_allclose(seen.sums, by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": None}, "counts must come with sums"),
        ({"counts": np.ones((1, 2))}, "seen.counts must be heads x rows"),
        ({"sums": np.ones((1, 2, 3))}, "seen.sums must be heads x rows x cols"),
        ({"prior": 0.0}, "seen.prior must be above 0"),
    ],
)
def test_refuses_what_was_seen_of_another_layer(change, message):
    built = profile()
    seen, *_ = _seen(built, 64)
    with pytest.raises(Error, match=message):
        _core.plan_layer(built, 0, 0, GRID, **seen.given(4.0) | change)


def test_renewed_kernels_are_the_weighted_mean():
    built = profile()
    heads, rng = built.layers[0].heads, np.random.default_rng(1)
    old = [_core.dequantise(built.bins, h.groups[0].code, h.groups[0].peak) for h in heads]
    kernels = np.stack([rng.permutation(one) for one in old]).astype(np.float32)
    kernels[:, 1] = 0.0  # never observed
    rows = np.array([30.0] + [0.0] * (len(heads) - 1))
    fresh = _core.renew_groups(built.bins, heads, 0, kernels, rows, 10.0)
    wanted = blend(old[0], kernels[0], 10.0 / 40.0)
    assert (fresh[0].code, fresh[0].peak) == _core.quantise(built.bins, wanted)
    for before, after in zip(heads[1:], fresh[1:], strict=True):
        assert (after.code, after.peak) == (before.groups[0].code, before.groups[0].peak)
    with pytest.raises(Error, match="rows must be one a head"):
        _core.renew_groups(built.bins, heads, 0, kernels, rows[:-1], 10.0)
    with pytest.raises(Error, match="kernels must have the profile's bins"):
        _core.renew_groups(built.bins, heads, 0, kernels[:, :-1], rows, 10.0)
