"""Masks found from orders alone, as in a run with mask dynamic: they never leave the GPU."""

from __future__ import annotations

import pytest
import torch
from paroattention import _core, attention
from paroattention.kernels import cuda_masks, cuda_observe
from paroattention.kernels.head_orders import HeadOrders, OrderedHead
from test_observe import HEADS, LAYOUTS, draws, make, plan_of

DENSITIES = (0.3, 1.0, 0.55)


def orders_of(layout, plan):
    heads = zip(plan.orders, DENSITIES, strict=True)
    made = tuple(OrderedHead(*head) for head in heads)
    return HeadOrders(layout, made, plan.block_q, plan.block_kv)


@pytest.mark.parametrize("tile", [(64, 64), (128, 64), (128, 128)], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_they_run_as_a_plan_with_these_masks(name, tile):
    layout = LAYOUTS[name]
    plan = plan_of(layout, tile)
    q, k, v = make(layout, 64, batch=2)
    asked = orders_of(layout, plan)
    found = cuda_masks.find_masks(q, k, asked)
    host = cuda_masks.host_plan(found)
    assert found.words.tolist() == _core.plan_words(host).tolist()
    assert found.density == pytest.approx(host.density, abs=1e-12)
    assert found.density_total == pytest.approx(host.density_total, abs=1e-12)
    for precision in ("int8", "bf16"):
        ours = attention(q, k, v, found, precision=precision)
        assert torch.equal(ours, attention(q, k, v, host, precision=precision))
    places = draws(layout)
    reading, want = (
        cuda_observe.meter(q, k, v, one, layout, places, 0.125, True) for one in (found, host)
    )
    assert torch.equal(reading, want)


def test_nothing_waits_and_nothing_stays():
    layout = LAYOUTS["text"]
    plan = plan_of(layout)
    q, k, v = make(layout, 64)
    asked = orders_of(layout, plan)

    def call():
        return attention(q, k, v, cuda_masks.find_masks(q, k, asked))

    call()  # orders and densities come to the GPU once
    held = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(out).all() and len(asked.heads) == HEADS
    del out
    assert torch.cuda.memory_allocated() == held
