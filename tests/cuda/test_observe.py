"""Kernels that observe, meter, mask and sum, against the same in plain torch."""

from __future__ import annotations

import gpu_problems as problems
import numpy as np
import pytest
import torch
from paroattention import ORDERS, TokenLayout, _core, attention
from paroattention import reference as oracle
from paroattention.kernels import capability, cuda_masks, cuda_observe, observe_torch
from paroattention.kernels.head_orders import HeadOrders, OrderedHead

# Ragged tiles, one frame, one block, text before and after, more than 64 blocks.
LAYOUTS = {
    "video": TokenLayout((5, 13, 17), prefix=7, suffix=9),
    "image": TokenLayout((1, 37, 41)),
    "one block": TokenLayout((2, 3, 4), suffix=1),
    "text": TokenLayout((4, 15, 22), prefix=226),
    "long": TokenLayout((9, 30, 26)),
}
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
HEADS = 3


def make(layout, head_dim, dtype=torch.bfloat16, *, batch=1, view="bnhd", seed=0):
    """q, k, v whose scores have a spread of two."""
    q, k, v = problems.tensors(
        HEADS, layout.length, head_dim, batch=batch, dtype=dtype, view=view, seed=seed
    )
    return 2 * q, k, v


def draws(layout, count=64, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (HEADS, count)
    places = torch.randint(layout.grid_size, shape, generator=generator, dtype=torch.int32)
    return places.cuda()


def plan_of(layout, tile=(64, 64)):
    """A plan for these tokens, text included, with random masks at density .4."""
    return problems.plan(
        layout.grid,
        HEADS,
        0.4,
        prefix=layout.prefix,
        suffix=layout.suffix,
        block_q=tile[0],
        block_kv=tile[1],
    )


def asked_of(plan, layout, density=0.4):
    """What masks in the plan's orders and tile are found from."""
    heads = tuple(OrderedHead(order, density) for order in plan.orders)
    return HeadOrders(layout, heads, plan.block_q, plan.block_kv)


def plain_state(bins, layout, q, k, queries, scale):
    """What plain torch sums on the GPU."""
    state = cuda_observe.ObserveState(bins, layout.grid, HEADS, "cuda")
    state._sums = torch.zeros(2, HEADS, len(bins), dtype=torch.float64, device="cuda")
    observe_torch.observe(
        *(q, k, layout, queries, scale, state._tables, state.counts),
        *(*state._sums, state._rows, None),
    )
    return state


def rounded(x):
    """As the kernels read it."""
    return x.to(torch.bfloat16) if x.dtype == torch.float32 else x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", LAYOUTS)
def test_observing_is_plain_torchs(name, head_dim, dtype, measured):
    layout, scale = LAYOUTS[name], head_dim**-0.5
    q, k, _ = make(layout, head_dim, dtype, batch=2)
    queries = draws(layout, 70)
    assert capability.observed_in_torch(q) is None
    for make_bins in (_core.Bins.even, _core.Bins.signed):
        bins = make_bins(layout.grid)
        state = cuda_observe.ObserveState(bins, layout.grid, HEADS, "cuda")
        for _ in range(2):
            kept = state.observe(q, k, layout, queries, scale, keep=(2, 0))
        want = plain_state(bins, layout, rounded(q), rounded(k), queries, scale)
        total, pairs = state.sums()
        want_total, want_pairs = want.sums()
        assert torch.equal(pairs, 2 * want_pairs)
        assert state.rows() == ([140] * HEADS, [0] * HEADS)
        peak = (want_total / want_pairs.clamp_min(1)).max()
        distance = ((total / 2 - want_total) / want_pairs.clamp_min(1)).abs().max() / peak
        measured(float(distance))
        assert distance < 2e-5
        assert (total.sum(1) / 2 - want_total.sum(1)).abs().max() < 70 * 1e-4
    half = torch.zeros(2, 70, layout.grid_size, device="cuda")
    for entry in range(2):
        columns = observe_torch.columns_of(entry, 70, 2)
        scores = observe_torch.scores_of(
            rounded(q)[entry], rounded(k)[entry], queries[:, columns], layout.prefix, scale
        )
        p = torch.softmax(scores, -1)[..., layout.prefix : layout.prefix + layout.grid_size]
        half[:, columns] = p[[2, 0]]
    assert (kept.float() - half).abs().max() < 1e-3 * half.max()


def test_observing_gives_the_same_bits_and_merges():
    layout = LAYOUTS["long"]
    bins, found = _core.Bins.even(layout.grid), []
    for _ in range(3):
        state = cuda_observe.ObserveState(bins, layout.grid, HEADS, "cuda")
        for seed in range(4):
            q, k, _ = make(layout, 128, seed=seed)
            state.observe(q, k, layout, draws(layout, seed=seed), 0.1)
        found.append(state.sums())
    for total, pairs in found[1:]:
        assert torch.equal(total, found[0][0]) and torch.equal(pairs, found[0][1])
    accumulators = [_core.OffsetAccumulator(bins, layout.grid) for _ in range(HEADS)]
    state.add_to(accumulators)
    assert [one.rows for one in accumulators] == [256] * HEADS
    want = (found[0][0] / found[0][1].clamp_min(1))[1].numpy()
    assert np.allclose(accumulators[1].kernel(), want, rtol=1e-6)


def test_observing_does_not_wait():
    layout = LAYOUTS["long"]
    q, k, v = make(layout, 128)
    plan = problems.plan(layout.grid, HEADS, 0.4)
    state = cuda_observe.ObserveState(_core.Bins.even(layout.grid), layout.grid, HEADS, "cuda")
    queries, asked = draws(layout), asked_of(plan, layout)

    def all_of_it():
        state.observe(q, k, layout, queries, 0.1, keep=(0,))
        cuda_observe.meter(q, k, v, plan, layout, queries, 0.1, True)
        cuda_masks.find_masks(q, k, asked)
        cuda_observe.block_importance(q, k, layout, plan.orders, 128, 64, 0.1)

    all_of_it()  # uploads once
    torch.cuda.set_sync_debug_mode("error")
    try:
        all_of_it()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rows_that_are_not_finite_are_left_out():
    layout = LAYOUTS["video"]
    q, k, v = make(layout, 64, view="bhnd")
    queries = draws(layout, 20)
    q[0, 1, layout.prefix + int(queries[1, 4]), 7] = float("inf")
    k[0, 2, 3, 3] = float("nan")
    bad = int((queries[1] == queries[1, 4]).sum())
    state = cuda_observe.ObserveState(_core.Bins.even(layout.grid), layout.grid, HEADS, "cuda")
    state.observe(q, k, layout, queries, 0.125)
    assert state.rows() == ([20, 20 - bad, 0], [0, bad, 20])
    total, _ = state.sums()
    assert torch.isfinite(total).all() and total[2].sum() == 0
    plan = plan_of(layout)
    reading = cuda_observe.meter(q, k, v, plan, layout, queries, 0.125, True).cpu()
    assert torch.isfinite(reading[:2]).all() and reading[2].isnan().all()


@pytest.mark.parametrize("tail", [False, True], ids=["", "tail"])
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128), (128, 128)], ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", LAYOUTS)
def test_meter_is_plain_torchs(name, head_dim, tile, tail, measured):
    layout = LAYOUTS[name]
    plan = plan_of(layout, tile)
    worst = 0.0
    for dtype, batch in ((torch.bfloat16, 1), (torch.float16, 2), (torch.float32, 1)):
        q, k, v = make(layout, head_dim, dtype, batch=batch)
        queries = draws(layout, 70)
        ours = cuda_observe.meter(q, k, v, plan, layout, queries, head_dim**-0.5, tail)
        masks = torch.stack([torch.from_numpy(head.mask.numpy()) for head in plan.heads]).cuda()
        want = observe_torch.meter(
            *(rounded(x) for x in (q, k, v)),
            *(plan.orders, masks, layout, tile, queries, head_dim**-0.5, tail),
        )
        difference = (ours - want).abs()
        assert difference[:, 0].max() < 2e-5
        assert (difference[:, 1] <= 4e-3 * want[:, 1] + 2e-6).all(), (ours, want)
        worst = max(worst, float((difference[:, 1] / want[:, 1].clamp_min(1e-3)).max()))
        again = cuda_observe.meter(q, k, v, plan, layout, queries, head_dim**-0.5, tail)
        assert torch.equal(again, ours)
        mass = cuda_observe.meter(q, k, None, plan, layout, queries, head_dim**-0.5, tail)
        assert torch.equal(mass[:, 0], ours[:, 0]) and mass[:, 1].isnan().all()
    measured(worst)


def test_meter_says_what_the_kernel_computes():
    """The sampled rows' error is that of the sparse kernel's output."""
    layout = LAYOUTS["long"]
    q, k, v = make(layout, 64, torch.float16)
    plan = problems.plan(layout.grid, HEADS, 0.3)
    queries = draws(layout, 512)
    read = cuda_observe.Readback(cuda_observe.meter(q, k, v, plan, layout, queries, 0.125, True))
    out = attention(q, k, v, plan, precision="bf16", tail=True)
    exact = oracle.dense(q.cpu(), k.cpu(), v.cpu())
    for head in range(HEADS):
        token = queries[head].long().cpu()
        got, want = out[0, head].cpu().double()[token], exact[0, head, token]
        error = float((got - want).square().sum() / want.square().sum())
        assert abs(float(read.get()[head, 1]) / error - 1) < 1e-2
    assert read.ready()


@pytest.mark.parametrize("density", [0.3, 0.8])
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128)], ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_that_are_found_are_plain_torchs(name, head_dim, tile, density):
    layout = LAYOUTS[name]
    asked = asked_of(plan_of(layout, tile), layout, density)
    for dtype, batch in ((torch.bfloat16, 1), (torch.float16, 2), (torch.float32, 1)):
        q, k, _ = make(layout, head_dim, dtype, batch=batch)
        k[..., 3] += 10
        found = cuda_masks.find_masks(q, k, asked)
        p = observe_torch.block_scores(q, k, asked.orders, layout, tile, head_dim**-0.5)
        want = observe_torch.select(p, torch.full((HEADS,), density, device="cuda"))
        ours = observe_torch.unpack_bits(found.masks, p.shape[-1])
        # Blocks whose scores are equal within rounding may change places.
        edge = p.masked_fill(~want, 2).amin(-1, keepdim=True)
        clear = (p / edge - 1).abs() > 1e-3
        assert torch.equal(ours & clear, want & clear)
        assert torch.equal(ours.sum(-1), want.sum(-1))
        host = cuda_masks.host_plan(found)
        assert found.words.tolist() == _core.plan_words(host).tolist()
        assert torch.equal(cuda_masks.find_masks(q, k, asked).words, found.words)


@pytest.mark.parametrize("path", ["portable", "hopper"])
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128), (128, 128)], ids=str)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", LAYOUTS)
def test_importance_is_plain_torchs(name, head_dim, tile, path, measured):
    if path == "hopper" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("not a GPU of compute capability 9.0")
    layout, orders = LAYOUTS[name], list(ORDERS[1:4])
    worst = 0.0
    for dtype, batch in ((torch.bfloat16, 1), (torch.float16, 2), (torch.float32, 1)):
        q, k, _ = make(layout, head_dim, dtype, batch=batch)
        scale = head_dim**-0.5
        ours = cuda_observe.block_importance(q, k, layout, orders, *tile, scale, path=path)
        want = observe_torch.block_importance(
            rounded(q), rounded(k), layout, orders, tile, head_dim**-0.5
        )
        assert ours.shape == want.shape
        difference = ((ours - want).abs() / (want + 1e-3)).max()
        worst = max(worst, float(difference))
        assert difference < 1e-3
        again = cuda_observe.block_importance(q, k, layout, orders, *tile, scale, path=path)
        assert torch.equal(ours, again)
    measured(worst)


def test_odd_strides_and_sizes_fall_back_or_copy():
    layout = TokenLayout((2, 5, 7))
    bins = _core.Bins.even(layout.grid)
    wide = torch.randn(1, HEADS, layout.length, 96, device="cuda", dtype=torch.float16)
    assert "head_dim 96" in capability.observed_in_torch(wide)
    state = cuda_observe.ObserveState(bins, layout.grid, HEADS, "cuda")
    state.observe(wide, wide, layout, draws(layout, 8), 0.1)
    assert state.rows()[0] == [8] * HEADS
    narrow = wide[..., 1:65]  # two bytes past a place for 16-byte loads
    one, two = (cuda_observe.ObserveState(bins, layout.grid, HEADS, "cuda") for _ in range(2))
    one.observe(narrow, narrow, layout, draws(layout, 8), 0.1)
    two.observe(narrow.contiguous(), narrow.contiguous(), layout, draws(layout, 8), 0.1)
    assert torch.equal(one.sums()[0], two.sums()[0])


def test_can_be_captured_in_a_graph():
    layout = LAYOUTS["video"]
    plan = plan_of(layout)
    q, k, v = make(layout, 64)
    queries, asked = draws(layout), asked_of(plan, layout)
    state = cuda_observe.ObserveState(_core.Bins.even(layout.grid), layout.grid, HEADS, "cuda")

    def step():
        state.observe(q, k, layout, queries, 0.125)
        reading = cuda_observe.meter(q, k, v, plan, layout, queries, 0.125, True)
        return reading, cuda_masks.find_masks(q, k, asked).words

    want = step()
    torch.cuda.synchronize()
    once = state.sums()[0]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
    assert torch.equal(state.sums()[0], 2 * once)
