"""Plans through two device buffers, on real streams: the same bits as plans that stay there."""

import gpu_problems as problems
import pytest
import torch
from paroattention import attention, cuda, plan_store

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
