"""What observes, meters and masks on a device: the plain torch of every device, on a CPU."""

import numpy as np
import pytest
import torch
from paroattention import ORDERS, Error, TokenLayout, _core, reference
from paroattention.bench.exact import ExactObserver
from paroattention.kernels import cuda_masks, cuda_observe
from paroattention.kernels.head_orders import FoundMasks, HeadOrders, OrderedHead
from problems import random_plan, tensors

SCALE = 64**-0.5
LAYOUTS = {
    "video": TokenLayout((5, 7, 9), prefix=3, suffix=5),
    "image": TokenLayout((1, 9, 13), prefix=26),
    "one block": TokenLayout((2, 3, 4)),
    "text": TokenLayout((3, 8, 11), prefix=226),
}


def draws(heads, layout, count=24, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (heads, count)
    return torch.randint(layout.grid_size, shape, generator=generator, dtype=torch.int32)


def exact_rows(q, k, layout, queries):
    """Float64 softmax rows [H, n, N] of the queries, each in its batch entry."""
    batch, heads = q.shape[:2]
    rows = torch.empty(heads, queries.shape[1], layout.length, dtype=torch.float64)
    for head in range(heads):
        for i, place in enumerate(queries[head].tolist()):
            entry = i * batch // queries.shape[1]
            row = q[entry, head, layout.prefix + place].double()
            rows[head, i] = torch.softmax(k[entry, head].double() @ row * SCALE, 0)
    return rows


def accumulated(bins, layout, queries, rows):
    """The core's sums of these rows."""
    accumulators = [_core.OffsetAccumulator(bins, layout.grid) for _ in queries]
    grid = rows[..., layout.prefix : layout.prefix + layout.grid_size]
    _core.add_rows(accumulators, queries.numpy(), grid.float().numpy())
    return accumulators


@pytest.mark.parametrize("make", [_core.Bins.even, _core.Bins.signed], ids=["even", "signed"])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_sums_are_the_cores(name, batch, make):
    layout = LAYOUTS[name]
    q, k, _ = tensors(2, layout.length, 64, batch=batch)
    bins = make(layout.grid)
    state = cuda_observe.ObserveState(bins, layout.grid, 2, "cpu")
    accumulators = []
    for seed in (1, 2):
        queries = draws(2, layout, seed=seed)
        state.observe(q, k, layout, queries, SCALE)
        rows = exact_rows(q, k, layout, queries)
        accumulators.append(accumulated(bins, layout, queries, rows))
    mine = [_core.OffsetAccumulator(bins, layout.grid) for _ in range(2)]
    state.add_to(mine)
    total, _ = state.sums()
    for head in range(2):
        core = accumulators[0][head]
        core.merge(accumulators[1][head])
        assert mine[head].rows == core.rows == 48
        want = core.kernel()
        assert np.abs(mine[head].kernel() - want).max() < 1e-5 * want.max()
        assert np.array_equal(mine[head].kernel() > 0, want > 0)
    assert total.sum() < 96 * (1 + 1e-6)


def test_bins_may_be_edges_and_pairs_count_keys():
    layout = TokenLayout((2, 3, 4))
    state = cuda_observe.ObserveState(([0, 1], [0, 2], [0, 1, 3]), layout.grid, 1, "cpu")
    q, k, _ = tensors(1, layout.length, 64)
    state.observe(q, k, layout, torch.zeros(1, 1, dtype=torch.int32), SCALE)
    _, pairs = state.sums()
    # From the corner: F 1, 1; H offsets 0, 1 -> nearest 0 (a tie goes inwards), 2; W 0, 1 and 2, 3.
    want = np.einsum("f,h,w->fhw", [1, 1], [2, 1], [1, 2, 1])
    assert pairs.view(2, 2, 3).numpy().tolist() == want.tolist()


def test_rows_of_chosen_heads_come_back():
    layout = LAYOUTS["video"]
    q, k, _ = tensors(3, layout.length, 64, batch=2, dtype=torch.bfloat16)
    queries = draws(3, layout, count=7)
    state = cuda_observe.ObserveState(_core.Bins.even(layout.grid), layout.grid, 3, "cpu")
    kept = state.observe(q, k, layout, queries, SCALE, keep=(2, 0))
    want = exact_rows(q, k, layout, queries)[[2, 0]]
    want = want[..., layout.prefix : layout.prefix + layout.grid_size]
    assert kept.dtype == torch.float16 and kept.shape == (2, 7, layout.grid_size)
    assert (kept.double() - want).abs().max() < 1e-3 * want.max()
    assert state.observe(q, k, layout, queries, SCALE) is None


def test_rows_that_are_not_finite_are_left_out_and_counted():
    layout = LAYOUTS["image"]
    q, k, _ = tensors(2, layout.length, 64)
    queries = draws(2, layout, count=9)
    bins = _core.Bins.even(layout.grid)
    bad = q.clone()
    bad[0, 1, layout.prefix + int(queries[1, 4]), 7] = float("nan")
    state = cuda_observe.ObserveState(bins, layout.grid, 2, "cpu")
    state.observe(bad, k, layout, queries, SCALE)
    same = int((queries[1] == queries[1, 4]).sum())
    assert state.rows() == ([9, 9 - same], [0, same])
    good = queries[1] != queries[1, 4]
    rows = exact_rows(q, k, layout, queries)
    core = accumulated(bins, layout, queries[1:, good], rows[1:, good])[0].kernel()
    mine = [_core.OffsetAccumulator(bins, layout.grid) for _ in range(2)]
    state.add_to(mine)
    assert np.abs(mine[1].kernel() - core).max() < 1e-5 * core.max()
    state.clear()
    assert state.rows() == ([0, 0], [0, 0]) and state.sums()[0].sum() == 0


@pytest.mark.parametrize("tail", [False, True], ids=["", "tail"])
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128), (128, 128)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_meter_is_what_the_reference_measures(name, tile, tail):
    layout = LAYOUTS[name]
    q, k, v = tensors(2, layout.length, 64, batch=2)
    plan = random_plan(layout, 2, 0.4, block_q=tile[0], block_kv=tile[1])
    queries = draws(2, layout)
    ours = cuda_observe.meter(q, k, v, plan, layout, queries, SCALE, tail)
    exact, sparse = reference.dense(q, k, v), reference.sparse(q, k, v, plan, tail=tail)
    rows = exact_rows(q, k, layout, queries)
    grid = slice(layout.prefix, layout.prefix + layout.grid_size)
    for head in range(2):
        token = queries[head].long() + layout.prefix
        inside = reference.token_mask(plan, head)[token]
        kept = (rows[head] * inside)[:, grid].sum() / rows[head][:, grid].sum()
        assert abs(float(ours[head, 0] - kept)) < 1e-5
        entry = torch.arange(24) * 2 // 24
        want, got = exact[entry, head, token], sparse[entry, head, token]
        error = (got - want).square().sum() / want.square().sum()
        assert abs(float(ours[head, 1] - error)) < 1e-5 + 1e-4 * float(error)


def test_meter_without_values_is_the_mass_alone():
    layout = LAYOUTS["text"]
    q, k, v = tensors(2, layout.length, 64, batch=2)
    plan, queries = random_plan(layout, 2, 0.4), draws(2, layout)
    whole = cuda_observe.meter(q, k, v, plan, layout, queries, SCALE, True)
    mass = cuda_observe.meter(q, k, None, plan, layout, queries, SCALE, True)
    assert torch.equal(mass[:, 0], whole[:, 0]) and mass[:, 1].isnan().all()


def test_meter_of_a_dense_plan_and_of_nothing_finite():
    layout = LAYOUTS["video"]
    q, k, v = tensors(2, layout.length, 64)
    plan = random_plan(layout, 2, 1.0)
    k[0, 1, 5, 5] = float("nan")
    ours = cuda_observe.meter(q, k, v, plan, layout, draws(2, layout), SCALE, True)
    assert ours[0, 0] == 1.0 and ours[0, 1] < 1e-12
    assert ours[1].isnan().all()


def test_readback_of_a_cpu_tensor_is_ready():
    read = cuda_observe.Readback(torch.arange(3.0))
    assert read.ready() and read.get().tolist() == [0, 1, 2]


def asked(layout, densities, tile=(64, 64)):
    """Heads of these densities, each in another order."""
    heads = [OrderedHead(ORDERS[head + 1], density) for head, density in enumerate(densities)]
    return HeadOrders(layout, tuple(heads), *tile)


def chosen(p, density):
    """The blocks that a row of these scores keeps, one after the other."""
    ranked = sorted(range(len(p)), key=lambda j: (-p[j], j))
    return set(ranked[: max(1, int(density * len(p) + 0.5))])


@pytest.mark.parametrize("density", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_that_are_found_keep_the_greatest_blocks(name, tile, density):
    layout = LAYOUTS[name]
    q, k, _ = tensors(2, layout.length, 64, batch=2)
    heads = asked(layout, (density, density), tile)
    plan = cuda_masks.find_masks(q, k, heads)
    assert isinstance(plan, _core.Plan) and cuda_masks.host_plan(plan) is plan
    assert plan.orders == heads.orders and plan.length == layout.length
    for head in range(2):
        place = torch.from_numpy(_core.permutation(layout.grid, plan.orders[head])).long()
        parts = [
            [x[b, head, layout.prefix + place].split(size) for b in range(2)]
            for x, size in ((q, tile[0]), (k, tile[1]))
        ]
        p = 0
        for b in range(2):
            pools = [torch.stack([block.mean(0) for block in side[b]]) for side in parts]
            tokens = torch.tensor([float(len(block)) for block in parts[1][b]])
            p = p + torch.softmax(pools[0] @ pools[1].T * SCALE + tokens.log(), -1) / 2
        mask = plan.heads[head].mask.numpy()
        assert mask.shape == (heads.rows, heads.cols)
        for row, kept in enumerate(mask):
            assert set(np.nonzero(kept)[0]) == chosen(p[row].tolist(), density)


def test_equal_blocks_are_taken_from_the_left():
    layout = TokenLayout((4, 8, 16))
    x = torch.ones(1, 1, layout.length, 64)
    plan = cuda_masks.find_masks(x, x, asked(layout, (0.4,)))
    assert (plan.heads[0].mask.words == 0b111).all()


def test_each_head_may_have_its_own_density():
    layout = TokenLayout((4, 8, 16))
    q, k, _ = tensors(2, layout.length, 64)
    plan = cuda_masks.find_masks(q, k, asked(layout, (0.25, 1.0)))
    counts = [head.mask.numpy().sum(1).tolist() for head in plan.heads]
    assert counts == [[2] * 8, [8] * 8]


def test_found_words_are_read_as_the_masks_that_they_hold():
    layout = LAYOUTS["video"]
    q, k, _ = tensors(2, layout.length, 64)
    heads = asked(layout, (0.5, 0.7))
    plan = cuda_masks.find_masks(q, k, heads)
    words = torch.from_numpy(_core.plan_words(plan))
    found = FoundMasks(heads.layout, heads.heads, words=words)
    for head, masks in zip(plan.heads, found.masks, strict=True):
        assert np.array_equal(masks.numpy().view(np.uint32), head.mask.words)
    assert _core.plan_words(cuda_masks.host_plan(found)).tolist() == words.tolist()


@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (64, 128), (32, 32)])
@pytest.mark.parametrize("name", LAYOUTS)
def test_importance_is_the_exact_observers(name, tile):
    layout = LAYOUTS[name]
    q, k, _ = tensors(2, layout.length, 64, batch=2)
    orders = ["HWF", "WFH"]
    ours = cuda_observe.block_importance(q, k, layout, orders, *tile, SCALE)
    exact = ExactObserver(*tile)
    exact.observe("double.0.0", q, k, layout, sm_scale=SCALE)
    for head, order in enumerate(orders):
        want = exact.maps["double.0.0", 0][head][ORDERS.index(order)].numpy()
        assert np.abs(ours[head].numpy() - want).max() < 1e-4 * want.max()


def refused(message, call, *args, **kwargs):
    with pytest.raises(Error) as caught:
        call(*args, **kwargs)
    assert message in str(caught.value)


def test_bad_arguments_are_named():
    layout = TokenLayout((2, 3, 4))
    q, k, v = tensors(2, layout.length, 64)
    bins, queries = _core.Bins.even(layout.grid), draws(2, layout)
    state = cuda_observe.ObserveState(bins, layout.grid, 2, "cpu")
    observe = state.observe
    refused("q must be a tensor (got str)", observe, "q", k, layout, queries, SCALE)
    refused("q must have the shape (B, H, N, D)", observe, q[0], k, layout, queries, SCALE)
    refused("k must have the dtype of q", observe, q, k.half(), layout, queries, SCALE)
    refused("q must be float32, float16", observe, q.double(), k, layout, queries, SCALE)
    refused(
        "the layout's 25 tokens (got 24)", observe, q, k, TokenLayout((1, 5, 5)), queries, SCALE
    )
    wide = TokenLayout((2, 4, 3))
    refused("layout must keep the grid and heads", observe, q, k, wide, queries, SCALE)
    refused("sm_scale must be finite and above 0 (got 0)", observe, q, k, layout, queries, 0)
    refused(
        "queries must be an int32 or int64 tensor", observe, q, k, layout, queries.float(), SCALE
    )
    refused("shape (H, n) with H = 2", observe, q, k, layout, queries[:1], SCALE)
    refused("1 to 4096 queries a head (got 0)", observe, q, k, layout, queries[:, :0], SCALE)
    refused("0 to 23 (got 24 to 24)", observe, q, k, layout, 0 * queries + 24, SCALE)
    refused("keep must hold heads, 0 to 1", observe, q, k, layout, queries, SCALE, keep=(2,))
    refused("accumulators must hold one accumulator per head", state.add_to, [])
    refused("heads must be at least 1", cuda_observe.ObserveState, bins, layout.grid, 0, "cpu")
    refused("three sides", cuda_observe.ObserveState, bins, (2, 3), 1, "cpu")

    plan = random_plan(layout, 2, 0.5)
    meter = cuda_observe.meter
    refused(
        "plan must be a Plan or FoundMasks (got NoneType)",
        meter,
        q,
        k,
        v,
        None,
        layout,
        queries,
        SCALE,
        True,
    )
    refused("made for the layout", meter, q, k, v, plan, wide, queries, SCALE, True)
    one = [x[:, :1] for x in (q, k, v)]
    refused("the plan's 2 heads (got 1)", meter, *one, plan, layout, queries[:1], SCALE, True)

    find, heads = cuda_masks.find_masks, asked(layout, (0.5, 0.5))
    refused("heads must be a HeadOrders (got Plan)", find, q, k, plan)
    refused("q must hold the plan's 2 heads (got 1)", find, one[0], one[1], heads)
    refused("sm_scale must be finite and above 0 (got 0)", find, q, k, heads, 0)
    none = asked(layout, (0.5, 0.0))
    refused("heads[1].density must be above 0 and at most 1 (got 0.0)", find, q, k, none)

    importance, orders = cuda_observe.block_importance, ["FHW"] * 2
    refused("one order per head, 2 (got 1)", importance, q, k, layout, ["FHW"], 64, 64, SCALE)
    refused("orders must hold only FHW", importance, q, k, layout, ["FHW", "XYZ"], 64, 64, SCALE)
    refused("path must be one of auto", importance, q, k, layout, orders, 64, 64, SCALE, path="")
    refused("block_q must lie in 1..4096", importance, q, k, layout, ["FHW"] * 2, 0, 64, SCALE)
