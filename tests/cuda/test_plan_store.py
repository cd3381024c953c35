"""Plans through two device buffers, on real streams: the same bits as plans that stay there."""

import gpu_problems as problems
import pytest
import torch
from paroattention import TokenLayout, attention
from paroattention.kernels import cuda, cuda_observe, plan_store

LAYERS = 6


@pytest.fixture
def small_store(monkeypatch):
    """A store in which nothing may stay: every layer's plan comes over the side stream."""
    device = torch.device("cuda", torch.cuda.current_device())
    store = plan_store.PlanStore(plan_store.CudaCopies(device), resident_bytes=0)
    monkeypatch.setitem(plan_store._stores, device, store)
    return store


@pytest.mark.parametrize("tail", [False, True])
def test_the_same_bits_as_plans_that_stay(small_store, tail):
    # Sizes differ, so that a buffer grows while a copy into it may be under way.
    grids = [(3, 16, 22), (9, 16, 22), (5, 16, 22)] * (LAYERS // 3)
    plans = [problems.plan(grid, 4, 0.3, seed=i) for i, grid in enumerate(grids)]
    inputs = [problems.tensors(4, plan.length, 128, seed=i) for i, plan in enumerate(plans)]
    passes = [
        [attention(*x, p, tail=tail) for x, p in zip(inputs, plans, strict=True)] for _ in range(4)
    ]
    assert small_store.hits == 4 * LAYERS - small_store.misses
    assert small_store.misses == LAYERS + 1
    for plan, x, *outs in zip(plans, inputs, *passes, strict=True):
        cuda.upload(plan, x[0].device)
        expected = attention(*x, plan, tail=tail)
        assert all(torch.equal(out, expected) for out in outs)


def test_device_memory_of_plans(small_store):
    plans = [problems.plan((21, 30, 52), 12, 0.3, seed=i, block_q=128) for i in range(4)]
    x = problems.tensors(12, plans[0].length, 128)
    for _ in range(2):
        for plan in plans:
            attention(*x, plan)
    largest = max(len(cuda.upload(plan, x[0].device)) for plan in plans)
    assert small_store.device_bytes <= 2 * 4 * largest
    plan_store.release()
    assert small_store.device_bytes == 0


def test_metered_plans_do_not_stay(small_store):
    """Each layer's own plan and one that is not in use, read between two calls."""
    plans = [problems.plan((9, 16, 22), 4, 0.3, seed=i) for i in range(LAYERS)]
    other = [problems.plan((9, 16, 22), 4, 0.2, seed=50 + i) for i in range(LAYERS)]
    layout = TokenLayout(tuple(plans[0].grid), plans[0].prefix, plans[0].suffix)
    q, k, v = problems.tensors(4, plans[0].length, 128)
    places = torch.randint(layout.grid_size, (4, 32), dtype=torch.int32)

    def readings():
        found = []
        for pair in zip(plans, other, strict=True):
            attention(q, k, v, pair[0])
            found += [
                cuda_observe.meter(q, k, v, one, layout, places, 128**-0.5, True) for one in pair
            ]
        return torch.stack(found)

    aside = [readings() for _ in range(3)]
    assert small_store.hits == 3 * LAYERS - small_store.misses == 2 * LAYERS - 1
    words = [len(cuda.upload(plan, q.device)) for plan in [*plans, *other]]
    assert small_store.device_bytes <= 3 * 4 * max(words)
    # Now all of them lie on the device.
    assert all(torch.equal(readings(), found) for found in aside)
