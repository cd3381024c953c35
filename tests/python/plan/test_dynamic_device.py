"""Masks that stay on a device as words, as on a GPU: what runs them and what reads them.

The device here is the CPU: the words are those of a Plan that plain torch found, and a Plan of them
runs.
"""

import numpy as np
import pytest
import torch
from paroattention import Error, TokenLayout, _core, attention, reference, session
from paroattention.kernels import cuda_masks, cuda_observe
from paroattention.kernels.head_orders import HeadOrders, OrderedHead
from problems import tensors
from shifting import GRID, shifted
from test_dynamic import LAYOUTS, SCALE, SETTINGS, host_for, masks_of


@pytest.fixture
def staying(monkeypatch):
    """Found masks stay words, as on a GPU; what they ran is kept."""
    ran = []

    def words_alone(q, k, v, plan, **options):
        assert isinstance(plan, cuda_masks.FoundMasks)
        ran.append(plan)
        return attention(q, k, v, cuda_masks.host_plan(plan), **options)

    find = cuda_masks.find_masks

    def found_words(q, k, heads, scale=None):
        words = torch.from_numpy(_core.plan_words(find(q, k, heads, scale)))
        tile = heads.block_q, heads.block_kv
        return cuda_masks.FoundMasks(heads.layout, heads.heads, *tile, words)

    monkeypatch.setattr(cuda_masks, "find_masks", found_words)
    monkeypatch.setattr(session, "attention", words_alone)
    return ran


def test_words_stand_for_their_masks(staying):
    layout = LAYOUTS["text"]
    host, built = host_for(SETTINGS(density=0.4, precision="bf16"), layout)
    qkv = tensors(2, layout.length, 64, batch=2)
    out, ours = host.call(host.session.begin_forward(1.0), "double.0.0", qkv)
    plan = masks_of(built, layout, *qkv[:2], 0.4)
    assert ours and reference.relative_error(out, reference.sparse(*qkv, plan, tail=True)) < 1e-5
    (found,) = staying
    assert found.words.tolist() == _core.plan_words(plan).tolist()
    assert found.density == pytest.approx(plan.density, abs=1e-12)


def test_the_meter_of_a_device_reads_words(staying):
    readings = []
    for on_device in (False, True):
        host, _ = host_for(SETTINGS(density=0.3), TokenLayout(GRID), save_profile=None)
        if on_device:
            host.session.observer.on_device = lambda q: True
        host.call(host.session.begin_forward(1.0), "double.0.0", shifted(2))
        host.session.watch.settle()
        (reading,) = host.session.watch.meter.history
        readings.append(reading["retained"])
    assert np.allclose(*readings, atol=0.02)
    q, k, v = shifted(2)
    places = torch.arange(0, 384, 5).int().expand(2, -1)
    (found,) = staying[1:]
    words, plan = (
        cuda_observe.meter(q, k, v, one, TokenLayout(GRID), places, SCALE, True)
        for one in (found, cuda_masks.host_plan(found))
    )
    assert torch.equal(words, plan)


def test_words_are_refused_on_a_cpu(staying):
    layout = LAYOUTS["video"]
    q, k, v = tensors(2, layout.length, 64)
    asked = HeadOrders(layout, (OrderedHead("FHW", 0.3),) * 2)
    found = cuda_masks.find_masks(q, k, asked)
    with pytest.raises(Error, match=r"plan must be a Plan \(got FoundMasks\)"):
        attention(q, k, v, found)
