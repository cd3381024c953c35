"""Plans built in the background, from Python."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from paroattention import Error, TokenLayout, _core
from paroattention.learn.seen_blocks import SeenBlocks
from plan_reference import blend, kernel_map, plan_head, seen_importance
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
    with pytest.raises(Error, match="layer must be one that the builder was asked for"):
        builder.get("double.0.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 2}, "group must be below 1, the profile's timestep groups"),
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
    assert outcome == ["layer must have been built before the builder was cancelled (got 1)"]
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


def known(seen, pools=(1, 1), **change):
    given = {"sums": seen.sums, "counts": seen.counts, "prior": 4.0}
    given |= dict(zip(("pool_q", "pool_kv"), pools, strict=True))
    return _core.KnownBlocks(**given | change)


@pytest.mark.parametrize("block", [64, 128])
def test_what_samples_saw_makes_the_masks_that_the_slow_way_makes(block):
    built = profile(groups=TWO)
    seen, *_ = _seen(built, block)
    size = {"block_q": block, "block_kv": block}
    plan = _core.plan_layer(built, 0, 1, GRID, density=0.4, threads=2, **size, known=known(seen))
    bare = _core.plan_layer(built, 0, 1, GRID, density=0.4, **size)
    for place, (head, entry) in enumerate(zip(plan.heads, built.layers[0].heads, strict=True)):
        kernel = kernel_map(built.bins, entry, 1, GRID, block, block)
        of_head = seen.sums[place], seen.counts[place]
        blended = seen_importance(*of_head, kernel, 4.0, np.prod(GRID), block)
        wanted = plan_head(blended, entry.order, 0.4)
        assert (head.mask.numpy() == wanted.mask.numpy()).all() and head.order == entry.order
        assert head.retained == pytest.approx(wanted.retained, rel=1e-5)
    assert not same(plan, bare)


@pytest.mark.parametrize("pools", [(2, 1), (1, 2), (4, 2), (64, 64)], ids=str)
def test_what_samples_saw_of_squares_moves_their_mass_alone(pools):
    """How it lies within is the kernel's; and many samples of the kernel's own change nothing."""
    built, grid_size = profile(), int(np.prod(GRID))
    orders = [head.order for head in built.layers[0].heads]
    seen, rng = SeenBlocks(GRID, orders, 64, 64, pools), np.random.default_rng(5)
    by_kernel = [one.numpy() for one in _core.layer_importance(built, 0, 0, GRID)]
    seen.sums += rng.random(seen.sums.shape, dtype=np.float32)
    seen.counts[:, ::2] = 7

    def importance():
        found = _core.layer_importance(built, 0, 0, GRID, known=known(seen, pools=pools))
        return [one.numpy() for one in found]

    def squares(values):
        down = np.add.reduceat(values, range(0, values.shape[0], pools[0]), axis=0)
        return np.add.reduceat(down, range(0, values.shape[1], pools[1]), axis=1)

    tiles = np.minimum(64, grid_size - 64 * np.arange(by_kernel[0].shape[0]))
    for head, (found, kernel) in enumerate(zip(importance(), by_kernel, strict=True)):
        queries = squares(np.broadcast_to(tiles[:, None], kernel.shape).astype(np.float64))
        queries = queries[:, :1] / min(pools[1], kernel.shape[1])
        count = seen.counts[head][:, None]
        both = (seen.sums[head] + 4 * squares(kernel) / queries) / (count + 4)
        np.testing.assert_allclose(squares(found * tiles[:, None]) / queries, both, rtol=1e-4)
    for head, kernel in enumerate(by_kernel):
        rows = np.add.reduceat(np.minimum(tiles, 64), range(0, len(tiles), pools[0]))
        seen.sums[head], seen.counts[head] = squares(kernel), rows
    for found, kernel in zip(importance(), by_kernel, strict=True):
        np.testing.assert_allclose(found * tiles[:, None], kernel, rtol=1e-4)


def test_plans_that_differ_in_some_heads_hold_the_others_masks_once():
    built = profile()
    old, new = (_core.plan_layer(built, 0, 0, GRID, density=one) for one in (0.3, 0.4))
    mixed = TokenLayout(GRID).plan([new.heads[0], *old.heads[1:]], 64, 64)
    for place, head in enumerate(mixed.heads):
        own = (new, old)[place > 0].heads[place].mask.words
        assert head.mask.words.ctypes.data == own.ctypes.data


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


@pytest.mark.parametrize("block", [64, 128])
def test_the_builder_makes_masks_of_what_samples_saw(block):
    """Of one layer; the other's are those of its kernels alone."""
    built = profile(groups=TWO)
    seen, *_ = _seen(built, block)
    size = {"block_q": block, "block_kv": block, "density": 0.4}
    builder = _core.PlanBuilder(built, 1, GRID, known={"double.0.0": known(seen)}, **size)
    expected = _core.plan_layer(built, 0, 1, GRID, known=known(seen), **size)
    assert same(builder.get(0), expected)
    assert same(builder.get(1), _core.plan_layer(built, 1, 1, GRID, **size))
    assert not builder.busy(0) and not builder.busy("double.1.0")
    assert not same(expected, _core.plan_layer(built, 0, 1, GRID, **size))


def test_the_builder_keeps_the_arrays_that_it_reads():
    built, size = profile(heads=8), {"density": 0.4}
    seen, *_ = _seen(built, 64)
    expected = _core.plan_layer(built, 0, 0, GRID, known=known(seen), **size)
    arrays = seen.sums.copy(), seen.counts.copy()
    given = {"double.0.0": _core.KnownBlocks(sums=arrays[0], counts=arrays[1], prior=4.0)}
    builder = _core.PlanBuilder(built, 0, GRID, known=given, threads=1, **size)
    del arrays, given
    assert same(builder.get(0), expected)


def test_only_what_is_read_is_busy():
    """A cancelled builder is until the heads under way are done."""
    built = profile(heads=4)
    builder = _core.PlanBuilder(built, 0, (21, 45, 80), threads=1)
    assert builder.busy(1)
    builder.cancel()
    for _ in range(1000):
        if not (builder.busy(0) or builder.busy(1)):
            break
        time.sleep(0.01)
    else:
        raise AssertionError("busy for ten seconds")
    assert builder.progress[0] < 8
    with pytest.raises(Error, match="layer must be one of the profile's layers"):
        builder.busy("double.7.0")


def test_some_heads_are_those_of_the_whole_layer():
    built = profile(heads=5)
    seen, *_ = _seen(built, 64)
    plan = _core.plan_layer(built, 0, 0, GRID, known=known(seen))
    maps = _core.layer_importance(built, 0, 0, GRID, known=known(seen))
    some = _core.plan_heads(built, 0, 0, GRID, known=known(seen), heads=[3, 1])
    of_some = _core.layer_importance(built, 0, 0, GRID, known=known(seen), heads=[3, 1])
    for head, own, blocks in zip((3, 1), some, of_some, strict=True):
        assert (own.mask.numpy() == plan.heads[head].mask.numpy()).all()
        assert (own.order, own.retained) == (plan.heads[head].order, plan.heads[head].retained)
        assert (blocks.numpy() == maps[head].numpy()).all() and blocks.order == own.order
    with pytest.raises(Error, match=r"heads must hold numbers below 5, .* .got 5"):
        _core.plan_heads(built, 0, 0, GRID, heads=[5])


ONES = {name: np.ones(shape, np.float32) for name, shape in (("two", (2, 3)), ("three", (2, 3, 3)))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": None}, "counts must come with sums"),
        ({"counts": ONES["two"][:1]}, "counts must have the heads and rows of sums, 2 x 3 .got 1"),
        ({"counts": ONES["two"].astype(int)}, "counts must be float32 .got int64"),
        ({"sums": ONES["three"].astype(float)}, "sums must be float32 .got float64"),
        ({"sums": ONES["two"]}, "sums must have 3 dimensions .got 2"),
        ({"sums": ONES["three"].T}, "sums must be contiguous"),
    ],
)
def test_refuses_what_is_not_what_samples_saw(change, message):
    with pytest.raises(Error, match=message):
        _core.KnownBlocks(**{"sums": ONES["three"], "counts": ONES["two"], "prior": 4.0} | change)


@pytest.mark.parametrize("where", ["plan_layer", "PlanBuilder"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sums": ONES["three"][:1], "counts": ONES["two"][:1]},
            "known.counts must hold heads x rows",
        ),
        (
            {"sums": ONES["three"][:, :, :2].copy()},
            "known.sums must hold heads x rows x cols, 2 x 3 x 3",
        ),
        ({"prior": 0.0}, "known.prior must be above 0"),
    ],
)
def test_refuses_what_was_seen_of_another_layer(where, change, message):
    built = profile()
    given = {"sums": ONES["three"], "counts": ONES["two"], "prior": 4.0} | change
    with pytest.raises(Error, match=message):
        if where == "PlanBuilder":
            _core.PlanBuilder(built, 0, GRID, known={0: _core.KnownBlocks(**given)})
        else:
            _core.plan_layer(built, 0, 0, GRID, known=_core.KnownBlocks(**given))


def test_refuses_what_is_known_of_a_layer_that_is_not_there():
    known = _core.KnownBlocks()
    with pytest.raises(Error, match="layer must be one of the profile's layers"):
        _core.PlanBuilder(profile(), 0, GRID, known={"double.7.0": known})
    with pytest.raises(Error, match=r"known must name layers below 2, the profile.s .got 2"):
        _core.PlanBuilder(profile(), 0, GRID, known={2: known})


# -- renewal -------------------------------------------------------------------------------------


def watched(built, rows, seed, bins=None):
    """An accumulator a head of random sums from so many rows; offset 1 was never observed."""
    draws = np.random.default_rng(seed)
    bins = bins or built.bins
    heads = [_core.OffsetAccumulator(bins, GRID) for _ in rows]
    pairs = draws.integers(1, 9, (len(rows), len(bins))).astype(float)
    sums = pairs * draws.random((len(rows), len(bins))) / 10
    sums[:, 1] = pairs[:, 1] = 0
    _core.add_sums(heads, sums, pairs, rows)
    return heads


def code(built, values):
    return _core.quantise(built.bins, values)


def test_renewed_kernels_are_the_weighted_mean():
    """Of two groups of samples, one of which counts less, and of the profile's own kernel."""
    built = profile(groups=TWO)
    first, second = watched(built, [30, 0, 8], 1)[:2], watched(built, [0, 0, 8], 2)[:2]
    second = [watched(built, [24], 3)[0], second[1]]
    samples = {"double.1.0": [(first, 1.0), (second, 0.25)]}
    fresh = _core.renew_profile(built, 1, samples, 10.0)
    groups = [layer.heads[0].groups for layer in built.layers]
    old = _core.dequantise(built.bins, groups[1][1].code, groups[1][1].peak)
    seen = blend(first[0].kernel(), second[0].kernel(), 30 / 36)
    assert seen[1] == 0
    wanted = blend(old, seen, 10 / 46)
    found = fresh.layers[1].heads[0].groups
    got, (codes, peak) = found[1], code(built, wanted)
    assert got.peak == pytest.approx(peak, rel=1e-6) and got.mass == groups[1][1].mass
    # A value between two codes may be rounded either way.
    apart = np.frombuffer(got.code, np.uint8).astype(int) - np.frombuffer(codes, np.uint8)
    assert np.abs(apart).max() <= 1 and (apart != 0).mean() < 0.01
    assert got.code != groups[1][1].code
    # The other group, the head without rows and the layer without samples stay.
    assert found[0].code == groups[1][0].code
    for layer, head in ((1, 1), (0, 0), (0, 1)):
        one, other = (p.layers[layer].heads[head].groups[1] for p in (built, fresh))
        assert (one.code, one.peak) == (other.code, other.peak)
    assert built.layers[1].heads[0].groups[1].code == groups[1][1].code


@pytest.mark.parametrize("make", [_core.Bins.signed, lambda grid: _core.Bins([0, 2], [0, 5], [0])])
def test_samples_in_other_bins_are_looked_up_at_the_profiles_edges(make):
    built = profile()
    bins, target = make(GRID), built.bins
    (own,) = watched(built, [64], 5, bins)
    quiet = watched(built, [0], 5, bins)
    fresh = _core.renew_profile(built, 0, {"double.0.0": [([own, *quiet], 1.0)]}, 0.0)
    value = own.kernel().reshape(len(bins.F), len(bins.H), len(bins.W))

    def near(edges, offset):
        return min(range(len(edges)), key=lambda i: (abs(edges[i] - offset), abs(edges[i])))

    wanted = np.zeros(len(target), np.float32)
    for f, h, w in itertools.product(target.F, target.H, target.W):
        axes = tuple(zip((bins.F, bins.H, bins.W), (f, h, w), strict=True))
        if any(offset > max(map(abs, edges)) for edges, offset in axes):
            continue
        sides = [(offset,) if edges[0] == 0 else (offset, -offset) for edges, offset in axes]
        hits = [
            value[tuple(near(edges, x) for (edges, _), x in zip(axes, point, strict=True))]
            for point in itertools.product(*sides)
        ]
        wanted[target.index(f, h, w)] = np.mean(hits)
    got = fresh.layers[0].heads[0].groups[0]
    before = built.layers[0].heads[0].groups[0]
    old = _core.dequantise(target, before.code, before.peak)
    codes, peak = code(built, blend(old, wanted, 0.0))
    assert got.peak == pytest.approx(peak, rel=1e-5)
    apart = np.frombuffer(got.code, np.uint8).astype(int) - np.frombuffer(codes, np.uint8)
    assert np.abs(apart).max() <= 1 and (apart != 0).mean() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 1}, "group must be an index into the timestep groups .got 1"),
        ({"prior": -1.0}, "prior must not be negative .got -1"),
        (
            {"heads": 1},
            r"samples\[0\].groups\[0\].heads must hold one entry for each of the layer's 2"
            r" heads .got 1",
        ),
        ({"weight": -0.5}, r"samples\[0\].groups\[0\].weight must not be negative .got -0.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_samples_that_do_not_fit(change, message):
    built = profile()
    given = {"group": 0, "prior": 10.0, "heads": 2, "weight": 1.0, "bins": built.bins} | change
    heads = [_core.OffsetAccumulator(given["bins"], GRID) for _ in range(given["heads"])]
    samples = {"double.0.0": [(heads, given["weight"])]}
    with pytest.raises(Error, match=message):
        _core.renew_profile(built, given["group"], samples, given["prior"])


def test_many_accumulators_are_added_to_and_read_as_one_by_one():
    built = profile()
    draws, shape = np.random.default_rng(4), (3, len(built.bins))
    sums, pairs = draws.random(shape), draws.integers(0, 3, shape).astype(float)
    many, single = ([_core.OffsetAccumulator(built.bins, GRID) for _ in range(3)] for _ in range(2))
    _core.add_sums(many, sums, pairs, [1, 2, 3], threads=2)
    for head, rows in enumerate((1, 2, 3)):
        single[head].add_sums(sums[head], pairs[head], rows)
    kernels = _core.kernels(many, threads=2)
    assert kernels.dtype == np.float32 and kernels.shape == shape
    for head, one in enumerate(single):
        assert (kernels[head] == one.kernel()).all() and many[head].rows == one.rows
    for given, message in (
        ((many, sums, pairs, [1, 2]), "rows must hold one number for each of the 3 heads .got 2"),
        ((many, sums[0], pairs, [1, 2, 3]), r"sum must have the shape \[heads, bins\] .got 1"),
        ((many, sums, pairs[:2], [1, 2, 3]), "pairs must hold one row per accumulator, 3 .got 2"),
        ((many, sums[:, :4], pairs, [1, 2, 3]), "sum must have .* one per bin .got 4"),
    ):
        with pytest.raises(Error, match=message):
            _core.add_sums(*given)
    with pytest.raises(Error, match="accumulators must hold at least one head"):
        _core.kernels([])
    with pytest.raises(Error, match="accumulators must share their bins"):
        _core.kernels([many[0], _core.OffsetAccumulator(_core.Bins.signed(GRID), GRID)])


def test_samples_are_added_in_place_or_refused():
    sums, counts = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3), np.float32)
    _core.add_samples(sums, counts, np.array([5, 0, 5]), np.ones((3, 4), np.float32))
    assert sums[1, 2].tolist() == [2] * 4 and sums[0, 0].tolist() == [1] * 4 and sums.sum() == 12
    assert counts.tolist() == [[1, 0, 0], [0, 0, 2]]
    for name, given in {
        "sums": (sums.astype(np.float64), counts),
        "counts": (sums, counts[:, ::2]),
    }.items():
        with pytest.raises(Error, match=f"^{name} must be"):
            _core.add_samples(*given, np.array([0]), np.ones((1, 4), np.float32))
    sums.flags.writeable = False
    with pytest.raises(Error, match=r"^sums must be writable"):
        _core.add_samples(sums, counts, np.array([0]), np.ones((1, 4), np.float32))
    with pytest.raises(Error, match=r"rows must be 0 to 5 \(got 6"):
        _core.add_samples(sums.copy(), counts, np.array([6]), np.ones((1, 4), np.float32))
