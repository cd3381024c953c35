"""Plans of MiniMax-H3's longest videos: 56 heads over 235,872 tokens of video and 2,992 others."""

import math

import numpy as np
import pytest
import torch
from paroattention import ORDERS, TokenLayout, _core, attention
from paroattention.bench.plan import kernels, made_up_profile
from paroattention.learn.seen_blocks import MOST_BYTES, SeenBlocks, pooled_tiles
from tolerances import LONG_ROWS, assert_close, errors

GRID, HEADS, LAYERS = (234, 24, 42), 56, 50
LAYOUT = TokenLayout(GRID, 2992, 0)
FP32 = torch.float32, "bf16"


@pytest.fixture(scope="module")
def profile():
    bins = _core.Bins.even(GRID)
    every = [[kernel] for kernel in kernels(bins, GRID, HEADS, 0)]
    return made_up_profile(bins, GRID, _core.build_heads(bins, every, GRID, 0.3), 1, HEADS)


@pytest.mark.parametrize(("block", "megabytes"), [(128, 25), (64, 97)])
def test_a_layer_of_all_heads(profile, block, megabytes):
    """Masks, schedules and the words that a GPU reads: every index is there once, none wraps."""
    sides = {"prefix": LAYOUT.prefix, "block_q": block, "block_kv": block, "density": 0.3}
    plan = _core.plan_layer(profile, 0, 0, GRID, **sides)
    rows, words = math.ceil(LAYOUT.grid_size / block), _core.plan_words(plan)
    mask_words = math.ceil(rows / 32)
    orders, schedule, masks = np.split(words, [HEADS, HEADS + HEADS * rows])
    assert masks.size == HEADS * rows * mask_words and words.nbytes < megabytes * 1e6
    assert plan.length == LAYOUT.length and plan.head_count == HEADS
    assert abs(plan.density - 0.3) < 0.002
    masks = masks.reshape(HEADS, rows, mask_words).view(np.uint32)
    for place, head in enumerate(plan.heads):
        assert ORDERS[orders[place]] == head.order
        assert np.array_equal(masks[place], head.mask.words)
    # No row without a block, and every row once in its head's schedule.
    assert masks.any(-1).all()
    schedule = np.sort(schedule.reshape(HEADS, rows))
    assert np.array_equal(schedule, np.broadcast_to(np.arange(rows), (HEADS, rows)))


@pytest.mark.parametrize("order", ORDERS)
def test_orders_hold_every_token_once(order):
    """Against numpy's own transposition of the grid."""
    axes = ["FHW".index(axis) for axis in order]
    want = np.arange(LAYOUT.grid_size).reshape(GRID).transpose(axes).reshape(-1)
    assert np.array_equal(_core.permutation(GRID, order), want)
    index = np.asarray(_core.pack_index(LAYOUT.prefix, GRID, 0, order, 128))
    assert np.array_equal(index[index >= 0][LAYOUT.prefix :], want + LAYOUT.prefix)


@pytest.mark.parametrize(("order", "block"), [("FHW", 64), ("WHF", 128)])
def test_attention_reaches_the_last_token(order, block):
    """Rows from both ends of the sequence, against those of the masks written out token by token.

    One head, of which each tile computes two key blocks, the last one among them."""
    layout, size = TokenLayout(GRID, 70, 3), math.prod(GRID)
    draws = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, layout.length, 64, generator=draws) for _ in range(3))
    blocks = math.ceil(size / block)
    mask = np.zeros((blocks, blocks), dtype=bool)
    near = (np.arange(blocks) * 7 + 1) % blocks
    mask[np.arange(blocks), near] = mask[:, -1] = True
    head = _core.HeadPlan(order, _core.BlockMask(mask))
    out = attention(q, k, v, layout.plan([head], block, block), precision="bf16", tail=False)[0, 0]
    q, k, v = (x[0, 0].double() for x in (q, k, v))

    def row(query, keys):
        return torch.softmax(k[keys] @ q[query] / 8, 0) @ v[keys]

    axes = ["FHW".index(axis) for axis in order]
    tokens = torch.from_numpy(np.arange(size).reshape(GRID).transpose(axes).reshape(-1).copy())
    tokens += layout.prefix
    text = [torch.arange(70), torch.arange(layout.length - 3, layout.length)]
    places = [0, block - 1, block, size // 2, size - block, size - 1]
    found, want = [], []
    for place in places:
        own = {int(near[place // block]), blocks - 1}
        keys = torch.cat([*text, *(tokens[one * block : (one + 1) * block] for one in own)])
        found.append(out[tokens[place]])
        want.append(row(tokens[place], keys))
    # Text before and after the grid sees every key.
    for query in (0, 69, layout.length - 3, layout.length - 1):
        found.append(out[query])
        want.append(row(query, slice(None)))
    assert_close(torch.stack(found[: len(places)]), torch.stack(want[: len(places)]), *FP32)
    whole = errors(torch.stack(found[len(places) :]), torch.stack(want[len(places) :]))
    assert whole.total <= LONG_ROWS.total and whole.token <= LONG_ROWS.token


@pytest.mark.parametrize("block", [64, 128])
def test_what_samples_saw_of_blocks_fits(block):
    """In eight parts of every head's queries."""
    pools = pooled_tiles(GRID, block), 1
    seen = SeenBlocks(GRID, ["FHW"], block, block, pools)
    assert seen.rows == 8 and seen.cols == math.ceil(math.prod(GRID) / block)
    size = SeenBlocks.bytes(GRID, HEADS, seen.block_q, seen.block_kv)
    assert size == HEADS * seen.sums.nbytes and size * LAYERS <= MOST_BYTES
