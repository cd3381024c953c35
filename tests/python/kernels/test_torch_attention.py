"""The fp32 attention that `bench fidelity --kernel torch` runs on a GPU equals the reference."""

import pytest
import torch
from paroattention import Error, TokenLayout, _core, reference
from paroattention.bench.torch_attention import TorchAttention
from paroattention.kernels import cuda_masks
from paroattention.kernels.head_orders import FoundMasks, HeadOrders, OrderedHead
from problems import random_plan, tensors


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (70, 0), (5, 130)])
def test_equals_the_reference(tail, block, prefix, suffix):
    layout = TokenLayout((3, 13, 11), prefix=prefix, suffix=suffix)
    plan = random_plan(layout, 2, 0.4, block_q=block, block_kv=block)
    q, k, v = tensors(2, plan.length, 64, batch=2)
    out = TorchAttention()(q, k, v, plan, sm_scale=0.125, tail=tail)
    expected = reference.sparse(q, k, v, plan, sm_scale=0.125, tail=tail)
    assert reference.relative_error(out, expected) < 2e-6
    other = reference.sparse(q, k, v, plan, sm_scale=0.125, tail=not tail)
    assert reference.relative_error(out, other) > 1e-3


def test_output_that_is_not_finite_is_told():
    layout = TokenLayout((3, 13, 11))
    q, k, v = tensors(2, layout.length, 64)
    broken = torch.zeros(1, dtype=torch.int32)
    plan = random_plan(layout, 2, 0.4)
    out = TorchAttention()(q, k, v * float("nan"), plan, broken=broken)
    assert broken.item() == 1 and torch.isfinite(out).all()
    assert not torch.isfinite(TorchAttention()(q, k, v * float("nan"), plan)).any()


def test_int8_is_refused():
    layout = TokenLayout((3, 13, 11))
    q, k, v = tensors(2, layout.length, 64)
    with pytest.raises(Error, match=r"precision must be bf16 in plain torch \(got 'int8'\)"):
        TorchAttention()(q, k, v, random_plan(layout, 2, 0.4), precision="int8")


@pytest.mark.parametrize("stays", [False, True], ids=["host", "device"])
def test_masks_of_a_calls_own_are_used_once(stays):
    """Another call's masks never stand in for them, wherever they were found."""
    layout = TokenLayout((3, 13, 11), prefix=5)
    attend = TorchAttention(keep=False)
    asked = HeadOrders(layout, (OrderedHead("HWF", 0.3), OrderedHead("WHF", 0.3)))
    for seed in range(4):
        q, k, v = tensors(2, layout.length, 64, seed=seed)
        found = cuda_masks.find_masks(q, k, asked, 0.125)
        if stays:
            words = torch.from_numpy(_core.plan_words(found))
            found = FoundMasks(asked.layout, asked.heads, words=words)
        out = attend(q, k, v, found, sm_scale=0.125, tail=False)
        plan = cuda_masks.host_plan(found)
        expected = reference.sparse(q, k, v, plan, sm_scale=0.125, tail=False)
        assert reference.relative_error(out, expected) < 2e-6
        del found, plan
