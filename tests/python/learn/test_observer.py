"""What the observers learn, and that watching leaves no trace."""

import random

import numpy as np
import pytest
import torch
from paroattention import ORDERS, Error, Observer, TokenLayout, _core
from paroattention.bench.exact import ExactObserver
from paroattention.learn import observer, sampling
from problems import tensors

LAYOUT = TokenLayout((5, 4, 3), prefix=7, suffix=2)
SCALE = 64**-0.5


def watch(watcher, qk, *, layer="double.0.0", layout=LAYOUT, group=0):
    watcher.observe(layer, *qk, layout, sm_scale=SCALE, group=group)
    return watcher


def qk(seed=0, *, layout=LAYOUT, heads=2, batch=1):
    return tensors(heads, layout.length, 64, seed=seed, batch=batch)[:2]


def grid_map(q, k, layout=LAYOUT):
    """[H, grid, grid] post-softmax map, not renormalised to the grid's keys."""
    grid = slice(layout.prefix, layout.prefix + layout.grid_size)
    rows = torch.softmax((q[0] @ k[0].transpose(-1, -2)).double() * SCALE, -1)
    return rows[:, grid, grid].numpy()


def full_kernel(values, grid):
    """Mean probability by |offset|, on a grid whose bins hold one offset each."""
    places = np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), 1)
    offsets = np.abs(places[None, :] - places[:, None])
    index = np.ravel_multi_index(offsets.transpose(2, 0, 1), grid).ravel()
    count = np.bincount(index, minlength=np.prod(grid))
    return np.bincount(index, values.ravel(), minlength=np.prod(grid)) / count


def test_small_grids_have_a_bin_per_offset():
    bins = _core.Bins.even(LAYOUT.grid)
    assert (bins.F, bins.H, bins.W) == ([0, 1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2])


def test_many_samples_are_the_kernel_of_the_full_map():
    q, k = qk()
    kernels = watch(Observer(4096), (q, k)).kernels("double.0.0")
    for kernel, values in zip(kernels, grid_map(q, k), strict=True):
        want = full_kernel(values, LAYOUT.grid)
        assert np.abs(kernel - want).sum() < 0.05 * want.sum()


def test_few_samples_find_the_same_structure():
    """64 queries of a head that looks along one axis: the kernel shows that axis."""
    layout = TokenLayout((8, 4, 4))
    place = torch.arange(16).repeat(8)
    q = 12 * torch.nn.functional.one_hot(place, 64).float()[None, None]
    (kernel,) = watch(Observer(64), (q, q), layout=layout).kernels("double.0.0")
    bins = _core.Bins.even(layout.grid)
    cube = kernel.reshape(len(bins.F), len(bins.H), len(bins.W))
    assert cube[:, 0, 0].sum() > 0.99 * cube.sum()


def test_prefix_and_suffix_keys_keep_their_share():
    q, k = qk()
    k = k.clone()
    k[:, :, : LAYOUT.prefix] += 3 * q.mean(2, keepdim=True)
    (kernel, _) = watch(Observer(4096), (q, k)).kernels("double.0.0")
    want = full_kernel(grid_map(q, k)[0], LAYOUT.grid)
    assert abs(kernel.sum() / want.sum() - 1) < 0.05


def test_leaves_every_random_generator_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    given = qk()
    watch(Observer(64, seed=9), given)
    ExactObserver().observe("double.0.0", *given, LAYOUT, sm_scale=SCALE)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_leaves_q_and_k_alone():
    q, k = qk()
    before = q.clone(), k.clone()
    watch(Observer(64), (q, k))
    assert torch.equal(q, before[0]) and torch.equal(k, before[1])


def test_draws_follow_the_seed():
    same, again, other = (
        watch(Observer(16, seed=seed), qk()).kernels("double.0.0")[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(same, again) and not np.array_equal(same, other)


@pytest.mark.parametrize(("batch", "rows"), [(1, 64), (2, 64), (3, 66), (64, 64), (100, 100)])
def test_queries_are_split_over_the_batch(batch, rows):
    watcher = watch(Observer(64), qk(batch=batch))
    heads = watcher.layers["double.0.0"].accumulators(0)
    assert [head.rows for head in heads] == [rows, rows]


def test_every_batch_entry_counts():
    first, second = qk(1), qk(2)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    (kernel, _) = watch(Observer(4096), both).kernels("double.0.0")
    want = sum(full_kernel(grid_map(*given)[0], LAYOUT.grid) for given in (first, second)) / 2
    assert np.abs(kernel - want).sum() < 0.05 * want.sum()


def test_several_evaluations_make_one_mean():
    watcher = Observer(2048)
    for seed in (1, 2):
        watch(watcher, qk(seed))
    (kernel, _) = watcher.kernels("double.0.0")
    want = sum(full_kernel(grid_map(*qk(seed))[0], LAYOUT.grid) for seed in (1, 2)) / 2
    assert watcher.layers["double.0.0"].accumulators(0)[0].rows == 4096
    assert np.abs(kernel - want).sum() < 0.05 * want.sum()


def test_layers_and_groups_stay_apart():
    watcher = Observer(32)
    alone = watch(Observer(32), qk(1)).kernels("double.0.0")[0]
    watch(watcher, qk(1))
    watch(watcher, qk(2), layer="double.1.0")
    watch(watcher, qk(3), group=1)
    assert np.array_equal(watcher.kernels("double.0.0")[0], alone)
    others = watcher.kernels("double.1.0")[0], watcher.kernels("double.0.0", 1)[0]
    assert not any(np.array_equal(alone, other) for other in others)


@pytest.mark.parametrize("queries", [2 * 32, 32, 10, 1, 0], ids="{} queries at a time".format)
def test_pieces_give_the_same(monkeypatch, queries):
    """Of some heads, or of one head's queries where all of them are too many."""
    given = qk(heads=5)
    whole = watch(Observer(32, keep_rows=True), given)
    most, sample = [], sampling.sample

    def noted(*given):
        for sampled in sample(*given):
            most.append(sampled.rows.numel())
            yield sampled

    monkeypatch.setattr(sampling, "_MAX_SCORES", queries * LAYOUT.length)
    monkeypatch.setattr(observer, "sample", noted)
    pieces = watch(Observer(32, keep_rows=True), given)
    for a, b in zip(whole.kernels("double.0.0"), pieces.kernels("double.0.0"), strict=True):
        assert np.allclose(a, b, rtol=1e-5)
    kept = whole.layers["double.0.0"].newest, pieces.layers["double.0.0"].newest
    assert [*kept[0]] == [*kept[1]] == [(0, head) for head in range(5)]
    for key, (places, rows) in kept[0].items():
        assert np.array_equal(places, kept[1][key][0])
        assert np.allclose(rows, kept[1][key][1], rtol=2e-3, atol=1e-6)
    assert max(most) == max(1, queries) * LAYOUT.length


@pytest.mark.parametrize("pieces", [False, True])
def test_of_a_long_video_a_capture_keeps_few_rows_of_a_head(monkeypatch, pieces):
    monkeypatch.setattr(observer, "_KEPT_BYTES", 5 * 2 * LAYOUT.grid_size)
    if pieces:
        monkeypatch.setattr(sampling, "_MAX_SCORES", 3 * LAYOUT.length)
    q, k = qk()
    watcher = watch(Observer(16, keep_rows=True), (q, k))
    ((name, (places, rows)),) = watcher.layers["double.0.0"].newest.items()
    assert name == (0, 0) and rows.shape == (5, LAYOUT.grid_size) and places.shape == (5,)
    assert np.allclose(rows, grid_map(q, k)[0][places], atol=1e-3)
    watcher = Observer(16, keep_rows=True, on_device=lambda q: True)
    watch(watcher, (q, k))
    watcher.layers["double.0.0"].take_rows()
    ((name, (found, kept)),) = watcher.layers["double.0.0"].newest.items()
    assert np.array_equal(found, places) and kept.shape == rows.shape
    assert np.allclose(kept, rows, atol=1e-3)


def test_kept_rows_are_rows_of_the_map():
    q, k = qk()
    watcher = watch(Observer(16, keep_rows=True), (q, k))
    for (group, head), (places, rows) in watcher.layers["double.0.0"].newest.items():
        assert group == 0 and places.dtype == np.int32 and rows.dtype == np.float16
        assert np.allclose(rows, grid_map(q, k)[head][places], atol=1e-3)


def test_rows_of_few_heads_a_layer_are_kept_where_all_would_not_fit(monkeypatch):
    rows = 2 * 16 * LAYOUT.grid_size
    for fitting, kept in ((0.5, ([0], [1], [2])), (2, ([0, 2], [1, 3], [2, 4]))):
        monkeypatch.setattr(observer, "_KEPT_BYTES", int(fitting * rows))
        watcher = Observer(16, keep_rows=True)
        for layer in ("double.0.0", "double.1.0", "double.2.0"):
            watch(watcher, qk(heads=5), layer=layer)
        heads = [[head for _, head in w.newest] for w in watcher.layers.values()]
        assert heads == list(kept)
        assert all(head.rows for head in watcher.layers["double.0.0"].accumulators(0))


def test_half_precision_inputs_are_summed_in_float32():
    layout = TokenLayout((16, 16, 16))
    q = torch.zeros(1, 1, layout.length, 64, dtype=torch.bfloat16)
    (kernel,) = watch(Observer(8), (q, q), layout=layout).kernels("double.0.0")
    assert np.allclose(kernel[kernel > 0], 1 / layout.length, rtol=1e-3)


def test_another_grid_is_refused_for_a_known_layer():
    watcher = watch(Observer(16), qk())
    other = TokenLayout((4, 5, 3), prefix=7, suffix=2)
    with pytest.raises(Error, match=r"layer double.0.0 must have .*\(5, 4, 3\).*got \(4, 5, 3\)"):
        watch(watcher, qk(), layout=other)
    watch(watcher, qk(), layer="double.1.0", layout=other)


def test_other_heads_are_refused_for_a_known_layer():
    watcher = watch(Observer(16), qk(heads=2))
    with pytest.raises(Error, match=r"layer double.0.0 must have .*2 heads.* and 3"):
        watch(watcher, qk(heads=3))


def test_another_text_length_is_the_same_grid():
    watcher = watch(Observer(16), qk())
    longer = TokenLayout(LAYOUT.grid, prefix=30)
    watch(watcher, qk(layout=longer), layout=longer)
    assert watcher.layers["double.0.0"].accumulators(0)[0].rows == 32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_refused_and_spoil_nothing(value):
    watcher = watch(Observer(16), qk())
    q, k = qk()
    q = q.clone()
    q[:, 1] = value
    with pytest.raises(Error, match="finite"):
        watch(watcher, (q, k))
    assert all(np.isfinite(kernel).all() for kernel in watcher.kernels("double.0.0"))


@pytest.mark.parametrize("queries", [0, -1, 4097])
def test_queries_out_of_range(queries):
    with pytest.raises(Error, match=rf"queries must be from 1 to 4096 \(got {queries}\)"):
        Observer(queries)


def test_exact_maps_are_block_sums_of_the_full_map():
    q, k = qk()
    watcher = ExactObserver(chunk=17)
    watcher.observe("double.0.0", q, k, LAYOUT, sm_scale=SCALE)
    for maps, values in zip(watcher.maps[("double.0.0", 0)], grid_map(q, k), strict=True):
        for order, blocks in zip(ORDERS, maps, strict=True):
            # 60 tokens are one block: the sum of everything, whatever the order.
            assert blocks.order == order
            assert blocks.numpy().shape == (1, 1)
            assert np.isclose(blocks.numpy().sum(), values.sum(), rtol=1e-4)


def test_exact_plan_takes_the_order_of_the_axis_that_a_head_looks_along():
    layout = TokenLayout((8, 8, 8))
    place = torch.arange(64).repeat(8)
    q = 12 * torch.nn.functional.one_hot(place, 64).float()[None, None]
    watcher = ExactObserver()
    watcher.observe("double.0.0", q, q, layout, sm_scale=SCALE)
    plan = watcher.plan("double.0.0", 0.125)
    # One block then holds whole columns of frames; with F slowest it holds one frame.
    assert plan.heads[0].order[0] != "F"
    assert plan.heads[0].retained > 0.99 and plan.density == 0.125
    fixed = watcher.plan("double.0.0", 0.125, order="FHW")
    assert fixed.heads[0].order == "FHW" and fixed.heads[0].retained < 0.3
